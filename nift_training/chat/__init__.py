"""Talking with a model, or with two side by side, as evaluation asks them."""
