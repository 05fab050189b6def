"""Engines: each holds a live model, takes new weights in place and answers requests."""
