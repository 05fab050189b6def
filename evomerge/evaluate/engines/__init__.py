"""Engines: what holds a live model, takes new weights in place and answers requests."""
