"""The Dagster code location: definitions, storage, resources, jobs and the command line. Nothing here computes."""

import gc

# Loading the graph makes some two hundred thousand objects that stay. Looking through them for garbage after every 700
# new ones, as Python does by itself, is a quarter of the time.
gc.set_threshold(100_000, 50, 50)
