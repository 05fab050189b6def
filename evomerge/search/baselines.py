"""The merges that people make without a search, and that a search must beat.

They come in stages, because a greedy soup depends on scores. Call `stage` with all scores so far,
until it returns nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evomerge.recipe import DType, Recipe, RecipeModel
from evomerge.space import short_names

BASE = "base"
UNIFORM_SOUP = "uniform soup"
TASK_ARITHMETIC = "task arithmetic"
TIES = "TIES"
DARE_TIES = "DARE-TIES"
SLERP = "SLERP"

LABELS = (BASE, UNIFORM_SOUP, TASK_ARITHMETIC, TIES, DARE_TIES, SLERP)
"""Fixed labels of baselines; parents and trials of the greedy soup have labels of their own."""

Scores = Mapping[str, float | None]
"""label -> score, higher is better; None for a baseline that could not be scored."""


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A default merge and what to call it."""

    label: str
    recipe: Recipe


@dataclass(frozen=True, kw_only=True)
class Baselines:
    """The default merges of a base and its sources.

    base, sources: references of the models as the recipes write them. out_dtype: storage dtype.
    seed: for DARE's masks, one for the whole search.

        scores = {}
        while stage := baselines.stage(scores):
            scores |= {baseline.label: score(baseline.recipe) for baseline in stage}
    """

    base: str
    sources: tuple[str, ...]
    out_dtype: DType
    seed: int

    def stage(self, scores: Scores) -> tuple[Baseline, ...]:
        """What to score next, given all scores so far; empty when there is nothing left."""
        wanted = self._independent()
        if all(baseline.label in scores for baseline in wanted):
            wanted = self._dependent(scores)
        return tuple(baseline for baseline in wanted if baseline.label not in scores)

    def greedy_soup(self, scores: Scores) -> str | None:
        """Label of the greedy soup once all stages are scored; None when no parent was scored.

        Wortsman et al. 2022, recipe 1: parents by score; each joins the average if that scores
        no worse. It may be a parent alone, or the uniform soup.
        """
        ingredients, _ = self._greedy(scores)
        return self._soup_label(ingredients) if ingredients else None

    def _independent(self) -> tuple[Baseline, ...]:
        """Baselines that need no scores: the single models and the methods at their defaults."""
        labels = parent_labels(self.sources)
        if self.base in self.sources:  # there is one model only, so all of these are that model
            return tuple(
                Baseline(label=label, recipe=self._average([self.base]))
                for label in (BASE, *labels, UNIFORM_SOUP)
            )
        # One source alone makes no soup, so it is averaged with the base (WiSE-FT at 0.5).
        soup = self.sources if len(self.sources) > 1 else (self.base, *self.sources)
        defaults = [
            Baseline(label=BASE, recipe=self._average([self.base])),
            *(
                Baseline(label=label, recipe=self._average([source]))
                for label, source in zip(labels, self.sources, strict=True)
            ),
            Baseline(label=UNIFORM_SOUP, recipe=self._average(soup)),
            Baseline(label=TASK_ARITHMETIC, recipe=self._task_arithmetic()),
            Baseline(label=TIES, recipe=self._ties()),
            Baseline(label=DARE_TIES, recipe=self._dare_ties()),
        ]
        if len(self.sources) <= 2:
            pair = self.sources if len(self.sources) == 2 else (self.base, *self.sources)
            defaults.append(Baseline(label=SLERP, recipe=self._slerp(*pair)))
        return tuple(defaults)

    def _dependent(self, scores: Scores) -> tuple[Baseline, ...]:
        """Baselines that need the parents' scores: SLERP of the best two, a greedy soup's trial."""
        ranked = self._ranked(scores)
        wanted = []
        if len(self.sources) > 2 and len(ranked) >= 2:
            wanted.append(Baseline(label=SLERP, recipe=self._slerp(*ranked[:2])))
        _, trial = self._greedy(scores)
        if trial:
            wanted.append(Baseline(label=self._soup_label(trial), recipe=self._average(trial)))
        return tuple(wanted)

    def _ranked(self, scores: Scores) -> list[str]:
        """Parents that were scored, best first; equals in the job's order."""
        found = [
            (score, source)
            for label, source in zip(parent_labels(self.sources), self.sources, strict=True)
            if (score := scores.get(label)) is not None
        ]
        return [source for _, source in sorted(found, key=lambda pair: -pair[0])]

    def _greedy(self, scores: Scores) -> tuple[list[str], list[str]]:
        """(ingredients so far, the next average to score, empty when the soup is done)."""
        ranked = self._ranked(scores)
        if not ranked:
            return [], []
        ingredients = ranked[:1]
        best = scores[self._soup_label(ingredients)]
        for candidate in ranked[1:]:
            trial = [*ingredients, candidate]
            label = self._soup_label(trial)
            if label not in scores:
                return ingredients, trial
            score = scores[label]
            if best is not None and score is not None and score >= best:
                ingredients, best = trial, score
        return ingredients, []

    def _soup_label(self, ingredients: Sequence[str]) -> str:
        if set(ingredients) == set(self.sources) and len(ingredients) > 1:
            return UNIFORM_SOUP
        labels = dict(zip(self.sources, parent_labels(self.sources), strict=True))
        names = [labels[source] for source in self.sources if source in ingredients]
        return names[0] if len(names) == 1 else f"soup of {' + '.join(names)}"

    def _average(self, models: Sequence[str]) -> Recipe:
        """The average with equal weights (Wortsman et al. 2022); a single model as it is."""
        if len(models) == 1:
            return only(models[0], out_dtype=self.out_dtype)
        ordered = [model for model in (self.base, *self.sources) if model in models]
        return Recipe(
            merge_method="linear",
            models=_each(ordered, weight=1.0),
            parameters={"normalize": True},
            out_dtype=self.out_dtype,
        )

    def _task_arithmetic(self) -> Recipe:
        """0.4 of each task vector, the value Yadav et al. 2023 take where nothing can be tuned.

        Ilharco et al. 2023 tune it, and find 0.3 to 0.5 close to the best in many cases.
        """
        return Recipe(
            merge_method="task_arithmetic",
            base_model=self.base,
            models=_each(self.sources, weight=0.4),
            out_dtype=self.out_dtype,
        )

    def _ties(self) -> Recipe:
        """The top 20% of each task vector, lambda 1: the defaults of Yadav et al. 2023."""
        return Recipe(
            merge_method="ties",
            base_model=self.base,
            models=_each(self.sources, weight=1.0, density=0.2),
            parameters={"normalize": True, "lambda": 1.0},
            out_dtype=self.out_dtype,
        )

    def _dare_ties(self) -> Recipe:
        """Half of each task vector (Yu et al. 2024), the weights adding up to 1."""
        return Recipe(
            merge_method="dare_ties",
            base_model=self.base,
            models=_each(self.sources, weight=1.0 / len(self.sources), density=0.5),
            out_dtype=self.out_dtype,
            evomerge={"seed": self.seed},
        )

    def _slerp(self, first: str, second: str) -> Recipe:
        """Halfway along the arc between two models."""
        return Recipe(
            merge_method="slerp",
            base_model=first,
            models=_each((first, second)),
            parameters={"t": 0.5},
            out_dtype=self.out_dtype,
        )


def only(model: str, *, out_dtype: DType) -> Recipe:
    """A recipe of one model as it is."""
    return Recipe(
        merge_method="linear",
        models=_each([model], weight=1.0),
        parameters={"normalize": True},
        out_dtype=out_dtype,
    )


def parent_labels(sources: Sequence[str]) -> tuple[str, ...]:
    """Label of each source's own baseline, in the order of the sources."""
    names = short_names(sources, taken=LABELS)
    return tuple(names[source] for source in sources)


def model_labels(sources: Sequence[str]) -> tuple[str, ...]:
    """Labels of the single models: the base, then each source, in their order."""
    return BASE, *parent_labels(sources)


def _each(models: Sequence[str], **parameters: float) -> tuple[RecipeModel, ...]:
    return tuple(RecipeModel(model=model, parameters={**parameters}) for model in models)
