"""Merge methods: one file for each family, and their registry."""
