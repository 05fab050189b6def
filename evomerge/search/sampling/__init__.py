"""Which items a generation is scored on, and what a few items say of all."""
