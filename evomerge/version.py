"""The version of evomerge, as packages, records and pages say it."""

__version__ = "0.1.0"
