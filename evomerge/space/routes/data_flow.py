"""The data-flow space: genes are the layers that a token passes through, and their scales.

Akiba et al. 2025 (arXiv 2403.13187), "merging in the data flow space". It turns genomes into
recipes of a route and back.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from evomerge.errors import JobError
from evomerge.recipe import Recipe
from evomerge.route import Hop, hops_of, stretches_of
from evomerge.space.base import Gene, switches_of
from evomerge.space.document import own_reference
from evomerge.space.parameters.methods import TOLERANCE, Inexpressible
from evomerge.space.routes.layout import RouteLayout

DIGITS = 12
"""Significant digits of a scale: few enough to hide rounding errors, so that 1 stays 1."""


class DataFlowSpace:
    """Genomes as routes through the layers of fixed models.

    If layers may come more than once, several genomes can give the same route.
    """

    def __init__(self, layout: RouteLayout) -> None:
        self._layout = layout
        self.genes: tuple[Gene, ...] = layout.genes
        positions = [gene.position(gene.start) for gene in layout.genes]
        self.start: NDArray[np.float64] = np.clip(positions, 0.0, 1.0)

    def starting_from(self, recipe: Recipe, *, where: str) -> DataFlowSpace:
        """The same space with a recipe as its start. Raises JobError when it cannot express it."""
        found = self._express(recipe)
        if isinstance(found, Inexpressible):
            raise JobError(f"{where}: this space cannot express the recipe: {found.reason}")
        genes = tuple(
            replace(gene, start=_value(gene, float(position)))
            for gene, position in zip(self.genes, found, strict=True)
        )
        return DataFlowSpace(replace(self._layout, genes=genes))

    @property
    def exclusive(self) -> bool:
        """Whether a limit on the layers excludes the first model, for example to prune it."""
        slots = self._layout.slots
        return not slots.least <= slots.depth <= slots.most

    def active(self, genome: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Every switch, and the scales of the route; all genes where scales are not conditional.

        A switch that a limit overrules counts too: the limit ranks switches by their values.
        """
        if not self._layout.spec.conditional:
            return np.ones(len(self.genes), dtype=np.bool_)
        used = [gene for gene in self._layout.scale_genes(self._taken(genome)) if gene is not None]
        mask = switches_of(self)
        mask[used] = True
        return mask

    def decode(self, genome: NDArray[np.float64]) -> Recipe:
        """The recipe of a genome, (n,) float64 in [0, 1]."""
        layout, taken = self._layout, self._taken(genome)
        hops = [
            Hop(
                *layout.slots.layer_at(slot),
                1.0 if gene is None else _value(self.genes[gene], float(genome[gene])),
            )
            for slot, gene in zip(taken, layout.scale_genes(taken), strict=True)
        ]
        return Recipe(
            merge_method="passthrough",
            route=stretches_of(hops),
            out_dtype=layout.out_dtype,
            stages=dict(layout.stages),
        ).without_unused()

    def encode(self, recipe: Recipe) -> NDArray[np.float64] | None:
        """A genome of the same route as `recipe`; None when the space cannot express it.

        The genome uses the earliest places. A recipe of the leading model alone is its own route.
        """
        found = self._express(recipe)
        return None if isinstance(found, Inexpressible) else found

    def _taken(self, genome: NDArray[np.float64]) -> tuple[int, ...]:
        assert genome.shape == (len(self.genes),), f"{genome.shape} is not ({len(self.genes)},)"
        assert ((genome >= 0.0) & (genome <= 1.0)).all(), "genome is outside the unit box"
        slots = self._layout.slots
        return slots.taken(genome[: len(slots.switches)])

    def _express(self, recipe: Recipe) -> NDArray[np.float64] | Inexpressible:
        """The genome, (n,), or the reason why there is none."""
        layout, slots = self._layout, self._layout.slots
        if any(layout.stages.get(name) != stage for name, stage in recipe.stages.items()):
            return Inexpressible("it is made of other stages than this space's")
        hops = self._hops(recipe)
        if isinstance(hops, Inexpressible):
            return hops
        taken = slots.earliest([(hop.model, hop.layer) for hop in hops])
        if taken is None:
            return Inexpressible(
                f"its route does not lead from layer 0 to layer {slots.closing} of "
                f"{layout.models[0]} in {slots.passes} passes over the models"
            )
        if not slots.least <= len(taken) <= slots.most:
            return Inexpressible(
                f"it has {len(taken)} layers, those of this space {slots.least} to {slots.most}"
            )
        chosen = [float(slot in taken) for slot in slots.switches]
        scales = [gene.position(1.0) for gene in self.genes[len(chosen) :]]
        genome = np.clip([*chosen, *scales], 0.0, 1.0)
        return self._scaled(genome, hops, taken)

    def _scaled(
        self, genome: NDArray[np.float64], hops: tuple[Hop, ...], taken: tuple[int, ...]
    ) -> NDArray[np.float64] | Inexpressible:
        """Write the hops' scales into a genome, (n,), that has scales of 1."""
        wanted: dict[int, float] = {}
        for hop, number in zip(hops, self._layout.scale_genes(taken), strict=True):
            if number is None:
                if hop.scale != 1.0:
                    return Inexpressible(f"it scales where this space cannot, by {hop.scale:g}")
                continue
            gene = self.genes[number]
            if wanted.setdefault(number, hop.scale) != hop.scale:
                return Inexpressible(f"{gene.name} would be {wanted[number]:g} and {hop.scale:g}")
            position = gene.position(hop.scale)
            if not -TOLERANCE <= position <= 1.0 + TOLERANCE:
                return Inexpressible(
                    f"{gene.name} would be {hop.scale:g}, outside [{gene.low:g}, {gene.high:g}]"
                )
            genome[number] = min(max(position, 0.0), 1.0)
        return genome

    def _hops(self, recipe: Recipe) -> tuple[Hop, ...] | Inexpressible:
        """The route of a recipe, with the space's own references."""
        models = self._layout.models
        if recipe.route is None:
            alone = _alone(recipe)
            if alone is None or own_reference(alone, models) != models[0]:
                return Inexpressible(f"it is neither a route nor {models[0]} alone")
            return tuple(Hop(models[0], layer) for layer in range(self._layout.slots.depth))
        if recipe.parameters:
            return Inexpressible("it has parameters beside its route")
        own = {name: own_reference(name, models) for name in recipe.references}
        unknown_model = next((name for name in own.values() if name not in models), None)
        if unknown_model is not None:
            return Inexpressible(f"it reads {unknown_model}, which is not a model of this space")
        return tuple(Hop(own[hop.model], hop.layer, hop.scale) for hop in hops_of(recipe))


def _value(gene: Gene, position: float) -> float:
    """A gene's value at a position, as recipes write it."""
    return float(f"{gene.value(position):.{DIGITS}g}")


def _alone(recipe: Recipe) -> str | None:
    """The model that a recipe of whole models keeps unchanged; None where it merges several."""
    counted = [entry for entry in recipe.models if entry.parameters.get("weight") != 0.0]
    if len(counted) != 1 or recipe.base_model not in (None, counted[0].model):
        return None
    [entry] = counted
    if recipe.merge_method == "passthrough":
        return None if entry.parameters or recipe.parameters else entry.model
    weight = entry.parameters.get("weight", recipe.parameters.get("weight"))
    if recipe.merge_method != "linear" or not isinstance(weight, (int, float)):
        return None
    return entry.model if recipe.parameters.get("normalize", True) or weight == 1.0 else None
