"""The code location: definitions, storage, resources, instance configuration and the command line. Nothing computes."""
