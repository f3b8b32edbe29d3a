"""What becomes of speed and size when there is much: `make bench-scale` runs every module of this folder."""
