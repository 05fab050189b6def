"""The engine in process: a transformers model, everywhere."""
