"""Keys: where they are read from, and how they are kept out of everything that is written."""
