"""The client of a service, for Python and for the command line."""
