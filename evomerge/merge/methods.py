"""The registry of merge methods. One file a family; a new method is a line here."""

from __future__ import annotations

from evomerge.merge.averages import LINEAR, SLERP
from evomerge.merge.method import Method
from evomerge.merge.task_vectors import DARE_LINEAR, DARE_TIES, TASK_ARITHMETIC, TIES

METHODS: dict[str, Method] = {
    "linear": LINEAR,
    "slerp": SLERP,
    "task_arithmetic": TASK_ARITHMETIC,
    "ties": TIES,
    "dare_ties": DARE_TIES,
    "dare_linear": DARE_LINEAR,
}
"""merge_method of a recipe -> the method."""
