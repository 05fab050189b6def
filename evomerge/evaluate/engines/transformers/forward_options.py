"""What the forward pass of one model takes, and trials of it with random weights.

Releases of transformers and architectures name the past differently, and some take no mask or no
positions. An option that an answer depends on is never left out silently.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from transformers import PreTrainedModel

from evomerge.evaluate.engines.base import Tokens

_PASTS = ("past_key_values", "cache", "cache_params")

_SPARING = frozenset({"use_cache", "logits_to_keep"})
"""Options that only save work: a model that does not take one computes more than was requested."""


class ForwardOptions:
    """Options of one model; `past` is the cache of what was read before."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._names = set(inspect.signature(model.forward).parameters)
        self._model = type(model).__name__
        self._past = next((name for name in _PASTS if name in self._names), None)

    def takes(self, *options: str) -> bool:
        """Whether the model takes all of these."""
        return all(self._name(option) in self._names for option in options)

    def leave_out(self, option: str) -> None:
        """Never give the model an option that only saves work."""
        assert option in _SPARING
        self._names.discard(option)

    def named(self, given: Mapping[str, object]) -> dict[str, object]:
        """Options by the model's own names.

        Raises TypeError for an option with a value that the model does not take, unless it only
        saves work.
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


# What trials of a model share: random weights, random texts, and when two results agree.
#
# A trial runs before any weights are loaded, so that its result depends on the architecture alone.
# It does not change the global random state.


_AGREEMENT = {torch.float32: 1e-4}
_COARSE_AGREEMENT = 0.07
"""The largest root mean square difference of a token's logits, in their standard deviations.

Rounding makes 1e-6 in float32, and up to 0.035 in bfloat16 at any depth; a wrong mask or place
makes 0.12 or more (twelve architectures, both mistakes made by hand).
"""

_NOISE = 1_000_003
"""Random numbers that fill all parameters; a prime number of them, so that rows of weights differ.
"""


def succeeds(trial: Callable[[], bool]) -> bool:
    """Whether a trial succeeds; an error of the model means that it does not."""
    try:
        with torch.inference_mode():
            return trial()
    except (TypeError, ValueError, RuntimeError, AttributeError, LookupError, AssertionError):
        return False


class RandomTexts:
    """Draws token ids of a model's vocabulary, the same ones for every model of that size."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._vocabulary = int(model.config.get_text_config(decoder=True).vocab_size)
        self._generator = np.random.default_rng(0)

    def draw(self, count: int) -> Tokens:
        """(count,) token ids; the lowest ones, which are often special, are left out."""
        return self._generator.integers(self._vocabulary // 8, self._vocabulary, size=count)


def agree(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether logits (tokens, vocabulary) differ by rounding alone."""
    limit = _AGREEMENT.get(found.dtype, _COARSE_AGREEMENT)
    found, expected = found.double(), expected.double()
    # Two unrelated logits of one token differ by about this much.
    deviation = expected.std(dim=-1).mean()
    difference = (found - expected).square().mean(dim=-1).sqrt().max()
    return bool(difference <= limit * deviation)


def randomise(model: PreTrainedModel) -> None:
    """Set weights that make attention look at some tokens more than at others, in every layer.

    Overwrites the model's parameters, which must not have been loaded yet.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            flat = parameter.detach().view(-1)
            noise = _noise()[: len(flat)]
            if parameter.ndim > 1:
                values = noise * 1.5 / math.sqrt(parameter.shape[-1])
            else:
                values = 0.2 * noise if name.endswith("bias") else 0.8 + 0.2 * noise
            values = values.to(dtype=flat.dtype, device=flat.device)
            for start in range(0, len(flat), _NOISE):
                flat[start : start + _NOISE] = values[: len(flat) - start]


@functools.cache
def _noise() -> torch.Tensor:
    return torch.randn(_NOISE, generator=torch.Generator().manual_seed(0))
