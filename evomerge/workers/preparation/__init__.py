"""Prepares a job: opens sources, builds tasks, space and objective, and checks everything."""
