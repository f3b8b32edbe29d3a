"""The Dagster code location: definitions, storage, resources, jobs and the command line. Nothing here computes."""

import gc

# Loading the graph makes a million objects and drops next to none of them. Looking through them for garbage after every
# 700, as Python does by itself, is a quarter of the time.
gc.set_threshold(100_000, 50, 50)
