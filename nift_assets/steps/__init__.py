"""How a dataset is declared, partitioned, asked for, run as a process and checked."""
