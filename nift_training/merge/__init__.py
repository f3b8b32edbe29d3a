"""An adapter merged into the weights of a base, a shard at a time."""
