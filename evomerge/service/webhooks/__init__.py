"""Webhooks: what is told of jobs, to which addresses, and how it is sent until it has arrived."""
