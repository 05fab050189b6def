"""Which items a generation is scored on, how many, and when a candidate has had enough of them.

Arrays of outcomes in, decisions out; it does not know models, engines or records.
"""
