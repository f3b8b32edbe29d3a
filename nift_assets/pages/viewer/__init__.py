"""A page to read what is stored: pairs, answers, rejects, failing rows, and every table by its name.

Rows come from the Parquet files by DuckDB, a page of them at a time. Nothing here writes, and nothing here answers to
HTTP: that is `dagster_project.ui.look`.
"""
