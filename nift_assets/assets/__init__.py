"""The graph: one short file per dataset, SQL models, and how both become checked Dagster assets."""
