"""Files that are copied as they are into a written task, where stock lm-eval runs them.

They import nothing of evomerge, so the task runs where evomerge is not installed.
"""
