"""The parameter space: genes are coefficients of a merge method, by model, depth and component.

Akiba et al. 2025 (arXiv 2403.13187), "merging in the parameter space". It turns genomes into
recipes and back.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evomerge.errors import JobError
from evomerge.recipe import Recipe, RecipeModel, Setting, resolve
from evomerge.space.base import Gene
from evomerge.space.parameters.encoding import express
from evomerge.space.parameters.layout import Layout
from evomerge.space.parameters.methods import Inexpressible
from evomerge.space.parameters.specification import Searched

ROUNDING = 1e-12
"""Relative error allowed for a gradient at a layer, because its position i/(L-1) is rounded."""


class ParameterSpace:
    """Genomes as recipes of one merge method over fixed models."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.genes: tuple[Gene, ...] = layout.genes
        positions = [gene.position(gene.start) for gene in layout.genes]
        self.start: NDArray[np.float64] = np.clip(positions, 0.0, 1.0)
        self._check_reach()

    def starting_from(self, recipe: Recipe, *, where: str) -> ParameterSpace:
        """The same space with a recipe as its start. Raises JobError when it cannot express it."""
        found = express(self._layout, recipe)
        if isinstance(found, Inexpressible):
            raise JobError(f"{where}: this space cannot express the recipe: {found.reason}")
        genes = tuple(
            replace(gene, start=gene.value(float(position)))
            for gene, position in zip(self.genes, found, strict=True)
        )
        return ParameterSpace(replace(self._layout, genes=genes))

    @property
    def exclusive(self) -> bool:
        """False: merges outside the box count too."""
        return False

    def active(self, genome: NDArray[np.float64]) -> NDArray[np.bool_]:
        """All of them: every coefficient has an effect in every genome."""
        return np.ones(len(self.genes), dtype=np.bool_)

    def decode(self, genome: NDArray[np.float64]) -> Recipe:
        """The recipe of a genome, (n,) float64 in [0, 1]."""
        assert genome.shape == (len(self.genes),), f"{genome.shape} is not ({len(self.genes)},)"
        assert ((genome >= 0.0) & (genome <= 1.0)).all(), "genome is outside the unit box"
        layout = self._layout
        settings = layout.settings(
            [gene.value(float(position)) for gene, position in zip(self.genes, genome, strict=True)]
        )
        fixed = {
            name: value
            for name, value in layout.spec.parameters.items()
            if not isinstance(value, Searched)
        }
        per_model: dict[str, dict[str, Setting]] = {model: {} for model in layout.models}
        recipe_settings: dict[str, Setting] = {}
        for name in layout.spec.parameters:
            for model in layout.models:
                if layout.rule.parameters[name].scope == "recipe":
                    recipe_settings[name] = fixed[name] if name in fixed else settings[name, None]
                elif name in fixed:
                    per_model[model][name] = fixed[name]
                else:
                    shared = (name, None) in settings
                    per_model[model][name] = settings[name, None if shared else model]
        return Recipe(
            merge_method=layout.spec.method,
            base_model=layout.base_model,
            models=tuple(
                RecipeModel(model=model, parameters=parameters)
                for model, parameters in per_model.items()
            ),
            parameters=recipe_settings,
            out_dtype=layout.out_dtype,
            evomerge=self._block(),
            stages=dict(layout.stages),
        ).without_unused()

    def _block(self) -> dict[str, Any]:
        """The `evomerge:` block of every recipe of the space."""
        layout = self._layout
        block: dict[str, Any] = {"seed": layout.seed} if layout.rule.random else {}
        return block if layout.statistics is None else {**block, "statistics": layout.statistics}

    def encode(self, recipe: Recipe) -> NDArray[np.float64] | None:
        """A genome of the same merge as `recipe`; None when the space cannot express it.

        The recipe may use another method. For example, an average equals a task arithmetic with the
        shares as weights; a single model has weight 1 and the others 0.
        """
        found = express(self._layout, recipe)
        return None if isinstance(found, Inexpressible) else found

    def _check_reach(self) -> None:
        """Check that every tensor gets its own value, and no other value through a filter.

        Tensor names come from the checkpoint, so a clash cannot be excluded in advance. Raises
        JobError with the tensor's name.
        """
        layout = self._layout
        values = np.linspace(1.0, 2.0, len(self.genes))  # all different, so that a mix-up shows
        settings = layout.settings([float(value) for value in values])
        for tracks in layout.tracks:
            first = min((track.first for track in tracks.tracks), default=0)
            matrix, constant = tracks.intended(layout.components)
            intended = matrix @ values[first : first + tracks.count] + constant
            setting = settings[tracks.parameter, tracks.source]
            for row, (name, depth) in enumerate(layout.components.depths.items()):
                resolved = resolve(setting, tensor_name=name, depth=depth)
                if resolved is None or abs(float(resolved) - intended[row]) > 2 * ROUNDING:
                    raise JobError(
                        f"{layout.where}: a filter for other tensors also catches {name}; "
                        "write layers: all and components: all"
                    )
