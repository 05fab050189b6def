"""The classes that draw items, by the name of a job's `evaluation.draws`; facts: job/draws.py."""

from __future__ import annotations

from evomerge.errors import JobError
from evomerge.job import load_draws
from evomerge.search.sampling.sampler import ItemSampler
from evomerge.search.sampling.samplers import (
    AllSampler,
    AnchorSampler,
    FixedSampler,
    FreshSampler,
    InformativeSampler,
)

BUILT_IN: dict[str, type[ItemSampler]] = {
    "informative": InformativeSampler,
    "fresh": FreshSampler,
    "anchors": AnchorSampler,
    "fixed": FixedSampler,
    "all": AllSampler,
}
"""`evaluation.draws` of a job -> the class, of evomerge's own."""


def sampler_of(name: str) -> type[ItemSampler]:
    """The class that draws. Raises JobError where the package that has it cannot be used."""
    if name in BUILT_IN:
        return BUILT_IN[name]
    found = load_draws(name).sampler
    if found is None or not issubclass(found, ItemSampler):
        raise JobError(f"evaluation.draws: {name}: its class is no evomerge.search.ItemSampler")
    return found
