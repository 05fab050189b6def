"""Processes that run one attempt of a job each, and the supervisor that starts and finds them."""
