"""Conditions as a filter in lm-eval: an answer that breaks one counts as wrong.

    filter_list:
      - name: in-japanese
        filter:
          - function: !function evomerge.conditions.filters.Keep
            conditions: [{language: ja}]
          - {function: regex, regex_pattern: "(-?[0-9.]+)", group_select: -1}
          - {function: take_first}

Put it before filters that extract parts of an answer. lm-eval makes it by calling it with the other
keys of its entry, and then calls only `apply`.
"""

from __future__ import annotations

from collections.abc import Sequence

from evomerge.conditions.settings import parse_conditions

BROKEN = "[condition broken]"
"""Replaces an answer that breaks a condition: no number, no choice, and never a right answer."""


class Keep:
    """Passes on answers that keep all conditions; others become `instead`."""

    def __init__(self, *, conditions: object, instead: str = BROKEN) -> None:
        self._conditions = parse_conditions(conditions)
        self._instead = instead

    def apply(self, resps: Sequence[Sequence[str]], docs: Sequence[object]) -> list[list[str]]:
        """The answers of every item; those that break a condition are replaced."""
        return [[self._kept(answer) for answer in answers] for answers in resps]

    def _kept(self, answer: str) -> str:
        kept = all(condition.kept(answer) for condition in self._conditions)
        return answer if kept else self._instead
