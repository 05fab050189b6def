"""The in-process engine: a transformers model, on any device."""
