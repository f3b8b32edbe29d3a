"""What a model answers and scores: one process that loads the weights once for all benchmarks."""
