"""Merge methods and the engine that executes recipes with them, one tensor at a time."""
