"""The outcome of a search, as it is recorded and shown."""
