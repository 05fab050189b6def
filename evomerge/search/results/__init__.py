"""What a search came to, as it is recorded and shown."""
