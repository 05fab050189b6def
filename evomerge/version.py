"""The version of evomerge, for packages, records and pages."""

__version__ = "0.1.0"
