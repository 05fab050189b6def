"""The vLLM engine, where it is installed and serves the model."""
