"""Plans made before: the candidates of a generation are all asked the same."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from evomerge.evaluate.engines.base import Tokens
from evomerge.evaluate.engines.token_tree import Limits, Plan, plan_passes

_KEPT_CELLS = 1 << 20
"""Of all plans that are kept, some 24 bytes each; the latest is kept however large it is."""


class KeptPlans:
    """Makes plans and keeps the last few."""

    def __init__(self) -> None:
        self._plans: dict[tuple[bytes, Limits], Plan] = {}

    def plan(self, texts: Sequence[Tokens], limits: Limits) -> Plan:
        """See `plan_passes`."""
        read = hashlib.blake2b(repr([len(text) for text in texts]).encode())
        for text in texts:
            read.update(text.tobytes())
        key = read.digest(), limits
        plan = self._plans.pop(key, None)
        if plan is not None:
            self._plans[key] = plan  # the latest is last
            return plan
        plan = self._plans[key] = plan_passes(texts, limits)
        while len(self._plans) > 1 and sum(map(_cells, self._plans.values())) > _KEPT_CELLS:
            del self._plans[next(iter(self._plans))]
        return plan


def _cells(plan: Plan) -> int:
    return sum(each.ids.size for each in plan.passes)
