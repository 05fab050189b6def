"""How routes changed over a search: which slots its candidates took, and how deep they were.

A slot is one layer in one pass over the models (`space/routes/layout.py`). All but two have a
switch.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from evomerge.route import Hop, hops_of
from evomerge.space import Layer, Slots
from evomerge.study import Trial

_SWITCH = re.compile(r"(?:[^/]*/)?in\.(\d+)\.(.+)\.(\d+)")
"""Name of a switch in the record: its stage if there is one, its pass, its model, its layer."""


@dataclass(frozen=True, order=True)
class Switch:
    """A slot that a route may take or leave.

    passing: the number of the pass over the models, from 1. model: its name in the genes.
    """

    passing: int
    model: str
    layer: int


@dataclass(frozen=True, kw_only=True)
class Known:
    """A model of a data-flow space.

    name: as in the genes. reference: as in recipes; None while no route has used the model.
    """

    name: str
    reference: str | None
    depth: int


@dataclass(frozen=True, kw_only=True)
class SlotHistory:
    """Shares of candidates that took each slot, by generation.

    switches: in the order of the route. shares: (switches, generations) in [0, 1]. models: in the
    order of the slots, the leading one first.
    """

    switches: tuple[Switch, ...]
    generations: tuple[int, ...]
    shares: tuple[tuple[float, ...], ...]
    models: tuple[Known, ...]


@dataclass(frozen=True, kw_only=True)
class Depths:
    """Lengths of the routes of one generation, in layers. best: of the highest score's route."""

    generation: int
    lengths: tuple[int, ...]
    mean: float
    best: int | None


def slot_history(trials: Iterable[Trial]) -> SlotHistory | None:
    """Count how many candidates took each slot; None if no candidate of the optimiser is a route.

    trials: of any kind; finalists are not counted, but they help to find the models' references.
    """
    routed = [trial for trial in trials if trial.recipe.route is not None and trial.parameters]
    if not any(trial.kind == "genome" for trial in routed):
        return None
    switches = tuple(switches_of(routed[0].parameters))
    slots = _slots(switches, hops_of(routed[0].recipe))
    counts: dict[int, Counter[Switch]] = defaultdict(Counter)
    sizes: Counter[int] = Counter()
    references = {slots.layers[0][0]: hops_of(routed[0].recipe)[0].model}
    for trial in routed:
        hops = hops_of(trial.recipe)
        path = _taken(trial, slots, hops)
        references |= {
            switch.model: hop.model for switch, hop in zip(path, hops[1:-1], strict=True)
        }
        if trial.kind == "genome":
            sizes[trial.key.generation] += 1
            counts[trial.key.generation].update(path)
    generations = tuple(sorted(sizes))
    depths = Counter(model for model, _ in slots.layers)
    return SlotHistory(
        switches=switches,
        generations=generations,
        shares=tuple(
            tuple(counts[number][switch] / sizes[number] for number in generations)
            for switch in switches
        ),
        models=tuple(
            Known(name=name, reference=references.get(name), depth=depth)
            for name, depth in depths.items()
        ),
    )


def switches_of(parameters: Mapping[str, float]) -> list[Switch]:
    """The slots that have a switch, as a record names them."""
    matches = (_SWITCH.fullmatch(name) for name in parameters)
    return [Switch(int(m[1]), m[2], int(m[3])) for m in matches if m is not None]


def depths_of(trials: Iterable[Trial]) -> tuple[Depths, ...]:
    """How long the optimiser's routes were, generation by generation."""
    populations: dict[int, list[Trial]] = defaultdict(list)
    for trial in trials:
        if trial.kind == "genome" and trial.recipe.route is not None:
            populations[trial.key.generation].append(trial)
    return tuple(_depths(number, populations[number]) for number in sorted(populations))


def _depths(generation: int, trials: Sequence[Trial]) -> Depths:
    lengths = [len(hops_of(trial.recipe)) for trial in trials]
    scored = [
        (trial.score, length)
        for trial, length in zip(trials, lengths, strict=True)
        if trial.score is not None
    ]
    best = max(scored, key=lambda pair: pair[0], default=None)
    return Depths(
        generation=generation,
        lengths=tuple(lengths),
        mean=sum(lengths) / len(lengths),
        best=None if best is None else best[1],
    )


def _slots(switches: Sequence[Switch], hops: Sequence[Hop]) -> Slots:
    """The slots of the space, by the names of their switches and by any route through them.

    The leading model's first and last layer have no switch in the first pass.
    """
    passes = max(switch.passing for switch in switches)
    names = list(dict.fromkeys(switch.model for switch in switches if switch.passing == passes))
    leading_depth = hops[-1].layer + 1
    if passes == 1 and leading_depth == 2:  # no layer of it has a switch, so its name is missing
        names.insert(0, hops[0].model)
    layers: list[Layer] = [(names[0], layer) for layer in range(leading_depth)]
    for name in names[1:]:
        depth = 1 + max(switch.layer for switch in switches if switch.model == name)
        layers += [(name, layer) for layer in range(depth)]
    slots = Slots(layers=tuple(layers), passes=passes, least=2, most=len(layers) * passes)
    assert len(slots.switches) == len(switches), "the record holds other switches than its routes"
    return slots


def _taken(trial: Trial, slots: Slots, hops: Sequence[Hop]) -> list[Switch]:
    """The switched slots on a candidate's route, in order.

    A limit on the number of layers can overrule switches. So the space reads them, for a route of
    the same length.
    """
    assert trial.genome is not None
    values = np.array(trial.genome[: len(slots.switches)])
    places = _of_length(slots, len(hops)).taken(values)
    return [Switch(slots.pass_of(place), *slots.layer_at(place)) for place in places[1:-1]]


@cache
def _of_length(slots: Slots, length: int) -> Slots:
    """The same slots, for routes of exactly `length` layers."""
    return replace(slots, least=length, most=length)
