"""A data-flow space laid out over its models: the places of layers on the route, and all genes.

It checks what the YAML form alone cannot show: the models, their depths and their architecture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from evomerge.errors import JobError, RecipeError
from evomerge.recipe import DType, Recipe
from evomerge.route import require_foldable
from evomerge.sources import Structure
from evomerge.space.base import Gene, short_names
from evomerge.space.document import own_reference
from evomerge.space.routes.specification import RoutesSpec, Scales, count_layers

# The places of a route: which layer each place has, and which places a genome takes.
#
# The layers of all models are put in one row, and this row is repeated (Akiba et al. 2025, arXiv
# 2403.13187, section "merging in the data flow space").


Layer = tuple[str, int]
"""A model's reference and the number of a layer in it."""


@dataclass(frozen=True, kw_only=True)
class Slots:
    """The places of a route, numbered from 0 over all passes.

    layers: all layers of the models in one row, those of the leading model first; it has two or
        more.
    passes: how often the row is repeated.
    least, most: how many layers a route has. This includes two that are in every route: it opens
        with the leading model's first layer and always closes with its last.
    """

    layers: tuple[Layer, ...]
    passes: int
    least: int
    most: int

    @cached_property
    def count(self) -> int:
        """Number of places."""
        return len(self.layers) * self.passes

    @cached_property
    def depth(self) -> int:
        """Number of layers of the leading model."""
        return sum(model == self.layers[0][0] for model, _ in self.layers)

    @property
    def closing(self) -> int:
        """The place of the last layer of every route."""
        return self.depth - 1

    @cached_property
    def switches(self) -> tuple[int, ...]:
        """The places that a route may take or skip, in order."""
        return tuple(slot for slot in range(1, self.count) if slot != self.closing)

    def layer_at(self, slot: int) -> Layer:
        """The layer that a place has."""
        return self.layers[slot % len(self.layers)]

    def pass_of(self, slot: int) -> int:
        """The number of the pass that a place belongs to, from 1."""
        return slot // len(self.layers) + 1

    def own(self, slot: int) -> bool:
        """Whether a place is on the leading model's own route."""
        return slot < self.depth

    def taken(self, values: NDArray[np.float64]) -> tuple[int, ...]:
        """The places of a route, in order, from the values of its switches, (switches,).

        Places with values above 1/2 are taken. If these are too many, the highest stay; if they are
        too few, the highest of the others are added. Among equal values, the earlier place comes
        first; the leading model's own route has the earliest places.
        """
        wanted = min(max(int((values > 0.5).sum()), self.least - 2), self.most - 2)
        ranked = np.argsort(-values, kind="stable")
        return (0, *sorted(self.switches[place] for place in ranked[:wanted]), self.closing)

    def earliest(self, layers: Sequence[Layer]) -> tuple[int, ...] | None:
        """The earliest places of a route's layers, in order.

        None where it opens or closes differently, or cannot reach a layer in this number of passes.
        """
        ends = (self.layers[0], self.layers[self.closing])
        if len(layers) < 2 or (layers[0], layers[-1]) != ends:
            return None
        found = [0]
        for layer in layers[1:-1]:
            if layer not in self.layers:
                return None
            places = range(self.layers.index(layer), self.count, len(self.layers))
            later = (slot for slot in places if slot > found[-1] and slot != self.closing)
            slot = next(later, None)
            if slot is None:
                return None
            found.append(slot)
        return (*found, self.closing)


@dataclass(frozen=True, kw_only=True)
class RouteLayout:
    """Places and genes of a data-flow space.

    genes: one for each switch of `slots`, in their order. Then come the scales: one for each place,
    or for each ordered pair of layers (from, to). stages: named merges that the recipes use as
    models.
    """

    spec: RoutesSpec
    models: tuple[str, ...]
    slots: Slots
    genes: tuple[Gene, ...]
    out_dtype: DType
    stages: Mapping[str, Recipe]

    def scale_genes(self, taken: Sequence[int]) -> tuple[int | None, ...]:
        """The number of the gene that scales each hop of a route; None where no gene does."""
        if not isinstance(self.spec.scales, Scales):
            return (None,) * len(taken)
        first = len(self.slots.switches)
        if self.spec.scales.per == "hop":
            return tuple(first + slot for slot in taken)
        count = len(self.slots.layers)
        offsets = [slot % count for slot in taken]
        return (None, *(first + count * before + after for before, after in pairwise(offsets)))


def lay_routes(
    spec: RoutesSpec,
    *,
    base: str,
    sources: Sequence[str],
    structure: Structure,
    out_dtype: DType,
    stages: Mapping[str, Recipe],
    where: str,
) -> RouteLayout:
    """Lay a data-flow space out over its models. Raises JobError when it does not fit them."""
    models = _models(spec, base, sources, where)
    depths = dict.fromkeys(models, structure.depth)
    if isinstance(spec.scales, Scales):
        try:
            require_foldable(structure, f"{where}.scales")
        except RecipeError as error:
            raise JobError(str(error)) from error
    slots = _slots(spec, depths, where)
    names = short_names(list(dict.fromkeys([base, *sources])))
    genes = [*_switches(slots, names)]
    if isinstance(spec.scales, Scales):
        genes += _scales(spec.scales, slots, names)
    assert len({gene.name for gene in genes}) == len(genes), "two genes of one name"
    return RouteLayout(
        spec=spec,
        models=models,
        slots=slots,
        genes=tuple(genes),
        out_dtype=out_dtype,
        stages=stages,
    )


def _models(spec: RoutesSpec, base: str, sources: Sequence[str], where: str) -> tuple[str, ...]:
    """The models that a route may pass through, each once, the leading model first."""
    if spec.models == "first_source":
        return (sources[0],)
    if spec.models == "sources":
        return tuple(sources)
    known = tuple(dict.fromkeys([*sources, base]))
    if spec.models == "sources_and_base":
        return known
    found: list[str] = []
    for place, written in enumerate(spec.models):
        at = f"{where}.models.{place}"
        model = _named(written, known)
        if model is None:
            raise JobError(f"{at}: {written}: no such model; the job has {', '.join(known)}")
        if model in found:
            raise JobError(f"{at}: {written} is listed twice; raise repeats to pass it again")
        found.append(model)
    return tuple(found)


def _named(written: str, known: Sequence[str]) -> str | None:
    """The model of a list entry, by its reference (with or without revision) or its short name."""
    own = own_reference(written, known)
    if own in known:
        return own
    names = short_names(known)
    matches = [model for model in known if written in (names[model], model.partition("@")[0])]
    return matches[0] if len(matches) == 1 else None


def _slots(spec: RoutesSpec, depths: Mapping[str, int], where: str) -> Slots:
    leading, depth = next(iter(depths.items()))
    if depth < 2:
        raise JobError(
            f"{where}.models: {leading} has one layer, and a route opens with the first and "
            "closes with another; lead with a deeper model"
        )
    layers: list[Layer] = [
        (model, number) for model, count in depths.items() for number in range(count)
    ]
    total = len(layers) * spec.repeats
    least = most = None
    if spec.min_layers is not None:
        least, words = count_layers(spec.min_layers, depth)
        if least > total:
            raise JobError(
                f"{where}.min_layers: {words} is more than the {total} layers "
                " of the space; lower it, or raise repeats"
            )
    if spec.max_layers is not None:
        most, words = count_layers(spec.max_layers, depth)
        if most < 2:
            raise JobError(
                f"{where}.max_layers: {words} is below the 2 that are in every route, "
                f"the first and the last of {leading}; raise it"
            )
        if least is not None and most < least:
            raise JobError(f"{where}.max_layers: {words} is below min_layers ({least}); raise it")
    slots = Slots(
        layers=tuple(layers),
        passes=spec.repeats,
        least=max(least or 0, 2),
        most=min(most or total, total),
    )
    if not isinstance(spec.scales, Scales) and (slots.least == total or slots.most == 2):
        raise JobError(
            f"{where}: only one route has {slots.least} layers and nothing is scaled, so "
            "nothing is searched; raise repeats, or mend the limits"
        )
    return slots


def _switches(slots: Slots, names: Mapping[str, str]) -> list[Gene]:
    """A gene for each place that a route may skip; the start is the leading model's route."""
    own = np.array([float(slots.own(slot)) for slot in slots.switches])
    # If that route has too many layers or too few, the limits change it.
    start = set(slots.taken(own))
    genes = []
    for slot in slots.switches:
        model, layer = slots.layer_at(slot)
        genes.append(
            Gene(
                name=f"in.{slots.pass_of(slot)}.{names[model]}.{layer:02d}",
                low=0.0,
                high=1.0,
                scale="linear",
                start=float(slot in start),
                parameter="included",
                source=model,
                component="all",
                layers=(layer, layer),
                binary=True,
            )
        )
    return genes


def _scales(scales: Scales, slots: Slots, names: Mapping[str, str]) -> list[Gene]:
    """A gene for each place, or for each ordered pair of layers, in RouteLayout's order."""
    if scales.per == "hop":
        places = [(slots.pass_of(slot), *slots.layer_at(slot)) for slot in range(slots.count)]
        return [
            _scale(scales, f"scale.{number}.{names[model]}.{layer:02d}", model, layer)
            for number, model, layer in places
        ]
    return [
        _scale(
            scales,
            f"scale.{names[before]}.{first:02d}->{names[after]}.{second:02d}",
            None,
            second,
        )
        for before, first in slots.layers
        for after, second in slots.layers
    ]


def _scale(scales: Scales, name: str, source: str | None, layer: int) -> Gene:
    return Gene(
        name=name,
        low=scales.low,
        high=scales.high,
        scale=scales.scale,
        start=1.0,
        parameter="scale",
        source=source,
        component="all",
        layers=(layer, layer),
    )
