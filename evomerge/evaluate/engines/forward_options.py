"""What the forward pass of one model takes, by the names that its class has for it.

Releases of transformers and architectures call the past differently, and some take no mask or no
places. An option that an answer depends on is never left out in silence.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from transformers import PreTrainedModel

_PASTS = ("past_key_values", "cache", "cache_params")

_SPARING = frozenset({"use_cache", "logits_to_keep"})
"""Options that only spare work: a model that does not take one gives more than it was asked for."""


class ForwardOptions:
    """Options of one model, among which `past` is what was read before."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._names = set(inspect.signature(model.forward).parameters)
        self._model = type(model).__name__
        self._past = next((name for name in _PASTS if name in self._names), None)

    def takes(self, *options: str) -> bool:
        """Whether the model takes all of these."""
        return all(self._name(option) in self._names for option in options)

    def leave_out(self, option: str) -> None:
        """Never give the model an option that only spares work."""
        assert option in _SPARING
        self._names.discard(option)

    def named(self, given: Mapping[str, object]) -> dict[str, object]:
        """Options by the model's own names.

        Raises TypeError for one that it does not take and that has a value, if it spares no work.
        """
        named: dict[str, object] = {}
        for option, value in given.items():
            name = self._name(option)
            if name is not None and name in self._names:
                named[name] = value
            elif option not in _SPARING and value is not None:
                raise TypeError(f"{self._model} takes no {option}")
        return named

    def _name(self, option: str) -> str | None:
        return self._past if option == "past" else option
