"""Scoring: tasks built once, engines that answer them, splits, objectives and intervals.

Only this package imports lm_eval. It does not know how a model was merged or proposed.
"""
