"""Decides, reports and records the settings that the models of a merge disagree on.

A merge has the configuration of its leading model: the base, else the first. Its answers end at the
end tokens of all its models; its other generation settings are the lead's. Settings that a recipe
gives under `evomerge.generation` take precedence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evomerge.merge.settings.forward import describe, differing_settings
from evomerge.merge.settings.generation import (
    END_TOKENS,
    GENERATION_KEY,
    changed_generation,
    differing_generation,
    end_tokens,
    lead_reference,
    united,
)
from evomerge.recipe import Recipe
from evomerge.sources import Source

DIFFERING_KEY = "differing_settings"
"""Under `evomerge:` in a recipe: setting -> model -> its value, where its models disagree."""


class SharedSettings:
    """Decides the settings for the models of one job, or of one recipe.

    models: by reference, as in their own files. ends: model -> end tokens, as rows of the result.
    unite: whether a merge ends at the end tokens of all models; False where its tokenizer was
    chosen by hand, for then it ends like the model of that tokenizer.
    """

    def __init__(
        self, models: Mapping[str, Source], ends: Mapping[str, tuple[int, ...]], *, unite: bool
    ) -> None:
        self._models = dict(models)
        self._ends = dict(ends)
        self._unite = unite
        self._united: dict[tuple[str, ...], Mapping[str, Any]] = {}
        self._differing: dict[tuple[str, ...], Mapping[str, Mapping[str, Any]]] = {}

    def generation(self, recipe: Recipe, sources: Mapping[str, Source]) -> Mapping[str, Any]:
        """The generation settings in which a merge differs from its lead. Raises RecipeError.

        sources: opened models by reference, stages among them, in the vocabulary of the result.
        """
        if GENERATION_KEY in recipe.evomerge:
            return changed_generation(recipe)
        lead, used = lead_reference(recipe, sources), self._used(recipe)
        if (lead, *used) not in self._united:
            self._united[lead, *used] = self._decide(sources[lead], used)
        return self._united[lead, *used]

    def _decide(self, lead: Source, used: tuple[str, ...]) -> Mapping[str, Any]:
        ends = [self._ends[name] for name in used]
        if not self._unite or len({frozenset(tokens) for tokens in ends}) < 2:
            return {}
        together = united(end_tokens(lead), ends)
        return {} if together is None else {END_TOKENS: together}

    def complete(self, recipe: Recipe, sources: Mapping[str, Source]) -> Recipe:
        """The recipe with the decisions in its `evomerge:` block; a single model stays as it is."""
        if recipe.alone is not None:
            return recipe
        generation, differing = self.generation(recipe, sources), self.differing(recipe)
        block = {GENERATION_KEY: dict(generation), DIFFERING_KEY: differing}
        return recipe.with_block(**{key: value for key, value in block.items() if value})

    def differing(self, recipe: Recipe) -> dict[str, dict[str, Any]]:
        """Setting -> model -> its value, for this merge's differing forward-pass settings."""
        used = self._used(recipe)
        if used not in self._differing:
            configs = {name: self._models[name].config for name in used}
            self._differing[used] = differing_settings(configs)
        return {key: dict(values) for key, values in self._differing[used].items()}

    def notes(self, recipe: Recipe | None = None) -> tuple[str, ...]:
        """The settings that the models disagree on and what a merge takes, a sentence each.

        recipe: only its models count; None: all models.
        """
        used = tuple(self._models) if recipe is None else self._used(recipe)
        models = {name: self._models[name] for name in used}
        rule = "a merge takes those of its base, or of its first model if it has no base"
        notes = []
        differing = differing_settings({name: source.config for name, source in models.items()})
        if differing:
            notes.append(
                f"models differ in settings of the forward pass: {describe(differing)}; {rule}"
            )
        ends = {name: list(self._ends[name]) for name in used}
        stated = recipe is not None and GENERATION_KEY in recipe.evomerge
        if len({frozenset(each) for each in ends.values()}) > 1 and not stated:
            ending = "ends at all of them" if self._unite else "ends like its tokenizer's model"
            notes.append(
                "models have different end tokens, as tokens of the result: "
                f"{describe({END_TOKENS: ends})}; a merge {ending}"
            )
        generating = differing_generation(models)
        if generating:
            notes.append(f"models differ in generation settings: {describe(generating)}; {rule}")
        return tuple(notes)

    def _used(self, recipe: Recipe) -> tuple[str, ...]:
        return tuple(name for name in recipe.checkpoints if name in self._models)
