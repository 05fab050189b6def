"""Base, items and cards of examples/smollm2."""
