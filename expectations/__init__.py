"""What every table promises, and whether it keeps its promise.

`<table>.yml` is a contract: the grain, the columns with their types, the tests. `contract` reads it, `runner`
holds a frame against it with Great Expectations, `frames` makes frames of the declared shape. Nothing here knows
Dagster.
"""
