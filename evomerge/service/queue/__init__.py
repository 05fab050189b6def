"""The queue: admission, limits, claims, moves between states, retries."""
