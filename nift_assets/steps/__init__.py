"""How a dataset is declared, versioned, partitioned, asked for, run as a process and checked; the walk of the graph."""
