"""Prompt/response pairs from elsewhere and for elsewhere: reference sets in, training files out."""
