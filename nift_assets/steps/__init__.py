"""How a dataset is declared, versioned, partitioned, asked for, run as a process and checked."""
