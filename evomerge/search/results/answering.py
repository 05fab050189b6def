"""The models whose answers to the items of a split are kept, by the names that people give them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from evomerge.errors import RunError
from evomerge.evaluate import CandidateKey, Phase, Role, Split
from evomerge.search.baselines import BASE, UNIFORM_SOUP, parent_labels
from evomerge.search.results.front import Front
from evomerge.search.results.points import SearchOutcome, outcome_of
from evomerge.search.results.selection import Selection
from evomerge.study import Study, Trial

_PHASES: dict[Split, Phase] = {"search": "baselines", "validation": "validation", "test": "test"}
"""The phase in which models are scored whose answers are kept, by the split of its items."""


@dataclass(frozen=True, kw_only=True)
class AnsweringModel:
    """A model that was scored on a split, and its record there."""

    label: str
    role: Role
    key: CandidateKey

    @property
    def called(self) -> str:
        """The name that people see: `winner` for the winner, else its label."""
        return "winner" if self.role == "winner" else self.label


@dataclass(frozen=True, kw_only=True)
class AnsweringModels:
    """The models on a split, the winner, or the best one, first.

    best_parent: label of the parent that the first is compared with; None if none was scored.
    points: labels of the front's points, in the order of the models; empty where there is none.
    """

    split: Split
    models: tuple[AnsweringModel, ...]
    best_parent: str | None
    points: tuple[str, ...] = ()

    @property
    def titles(self) -> Mapping[str, str]:
        """What the best models stand for, by their labels; the winner's name says it already."""
        kinds: dict[Role, str] = {"baseline": "the best baseline", "finalist": "the best finalist"}
        best = self.models[:1] if self.split != "test" else ()
        found = {model.label: kinds[model.role] for model in best if model.role in kinds}
        if self.best_parent is not None:
            found[self.best_parent] = "the best parent"
        return found

    @property
    def usual(self) -> tuple[AnsweringModel, ...]:
        """The first model, the parents with the best one in front, and the uniform soup."""
        first, others = self.models[:1], self.models[1:]
        parents = [model for model in others if model.role == "parent"]
        parents.sort(key=lambda model: model.label != self.best_parent)
        soup = [model for model in others if model.label == UNIFORM_SOUP]
        once = {model.key: model for model in reversed([*first, *parents, *soup])}
        return tuple(reversed(once.values()))


def models_on(study: Study, split: Split | None = None) -> AnsweringModels:
    """The models that were scored on a split and have a score.

    split: None for the test items of an ended search, or else the search items of its baselines.
    """
    outcome = outcome_of(study)
    if split is None:
        split = "search" if outcome is None else "test"
    if split == "test" and outcome is not None:
        return _tested(study, outcome)
    trials = _last_round(study, _PHASES[split])
    order = sorted(trials, key=lambda trial: -(trial.score or 0.0))
    models = [_model(trial, _role_of(trial.label, study)) for trial in order]
    won = [_model(trial, "winner") for trial in order if _has_won(trial, outcome)]
    merges = [model for model in models if model.role not in ("base", "parent")]
    parents = [model.label for model in models if model.role == "parent"]
    known = {model.label for model in won}
    others = [model for model in (*merges, *models) if model.label not in known]
    return AnsweringModels(
        split=split,
        models=tuple(dict.fromkeys([*won, *others])),
        best_parent=next(iter(parents), None),
    )


def chosen_models(
    there: AnsweringModels, names: Sequence[str], study: Study
) -> tuple[AnsweringModel, ...]:
    """The models of these names, each once. Raises RunError for a name that none of them has."""
    if not names:
        return there.usual
    found: dict[AnsweringModel, None] = {}
    for name in names:
        meant = _named(there, name)
        if not meant:
            elsewhere = _split_of(study, name)
            where = f"; it is on {elsewhere} items (--split {elsewhere})" if elsewhere else ""
            known = ", ".join(dict.fromkeys(model.label for model in there.models)) or "none"
            chief = "front" if there.points else "winner"
            raise RunError(
                f"--models {name}: no such model on the {there.split} items{where}; there are "
                f"{known}, also as {chief}, parents, soup and base"
            )
        found |= dict.fromkeys(meant)
    return tuple(found)


def _named(there: AnsweringModels, name: str) -> list[AnsweringModel]:
    exact = [model for model in there.models if name in (model.label, str(model.key))]
    roles: dict[str, Role] = {"winner": "winner", "parents": "parent", "base": "base"}
    if exact:
        return exact[:1]
    if name == "soup":
        return [model for model in there.models if model.label == UNIFORM_SOUP]
    if name == "front":
        return [model for model in there.models if model.label in there.points]
    return [model for model in there.models if model.role == roles.get(name)]


def _split_of(study: Study, name: str) -> Split | None:
    """Another split on which a model of that name was scored, and its answers were kept."""
    for trial in study.trials:
        if trial.answers is not None and name in (trial.label, str(trial.key)):
            return next(split for split, phase in _PHASES.items() if phase == trial.key.phase)
    return None


def splits_with(study: Study, item: int, tasks: Collection[str]) -> tuple[Split, ...]:
    """The splits on which answers to an item of one of these tasks are kept, and can be read."""
    found = []
    for split, phase in _PHASES.items():
        for trial in study.trials:
            if trial.key.phase != phase or trial.answers is None:
                continue
            try:
                answers = study.answers_of(trial.key)
            except RunError:
                continue  # another model's answers may still be there
            items = [each.item for task in tasks if task in answers for each in answers[task].items]
            if item in items:
                found.append(split)
                break
    return tuple(found)


def _tested(study: Study, outcome: SearchOutcome) -> AnsweringModels:
    """The models of an outcome, by their records on the test items."""
    labels: tuple[str, ...] = ()
    if isinstance(outcome, Selection):
        best_parent: str | None = outcome.best_parent
        rivals = outcome.test[1:]
        models = [AnsweringModel(label=outcome.winner, role="winner", key=outcome.test_key)]
    else:
        best_parent = _best_parent(outcome)
        rivals = outcome.rivals
        points = sorted(outcome.points, key=lambda point: not point.found)
        models = [
            AnsweringModel(label=point.label, role=point.role, key=point.test_key)
            for point in points
        ]
        labels = tuple(point.label for point in points)
    records = _records(study, models[0].key.selected_after)
    models += [
        AnsweringModel(label=rival.label, role=rival.role, key=records[rival.label].key)
        for rival in rivals
        if rival.label in records
    ]
    unique = tuple(dict.fromkeys(models))
    return AnsweringModels(split="test", models=unique, best_parent=best_parent, points=labels)


def _best_parent(front: Front) -> str | None:
    """The parent with the best test score on the first axis."""
    axis = front.axes[0]
    sign = 1.0 if axis.higher_is_better else -1.0
    parents = [rival for rival in front.rivals if rival.role == "parent"]
    best = max(parents, key=lambda rival: sign * axis.of(rival).value, default=None)
    return None if best is None else best.label


def _records(study: Study, after: int) -> Mapping[str, Trial]:
    """Label -> the record on the test items of the selection after so many generations.

    A merge that has two labels was scored once, under the first of them.
    """
    tested = [
        trial
        for trial in study.trials
        if trial.key.phase == "test" and trial.key.selected_after == after and trial.failure is None
    ]
    by_recipe = {trial.recipe.to_yaml(): trial for trial in tested}
    also = {
        trial.label: by_recipe[trial.recipe.to_yaml()]
        for trial in study.trials_of("baseline")
        if trial.recipe.to_yaml() in by_recipe
    }
    return {**also, **{trial.label: trial for trial in tested}}


def _last_round(study: Study, phase: Phase) -> list[Trial]:
    """The scored models of a phase; of finalists, those of the last selection."""
    trials = [t for t in study.trials if t.key.phase == phase and t.score is not None]
    if phase == "baselines":
        return trials
    last = max((trial.key.selected_after for trial in trials), default=0)
    return [trial for trial in trials if trial.key.selected_after == last]


def _has_won(trial: Trial, outcome: SearchOutcome | None) -> bool:
    """Whether a finalist on validation items became the winner."""
    return (
        isinstance(outcome, Selection)
        and trial.key.phase == "validation"
        and trial.key.selected_after == outcome.test_key.selected_after
        and trial.label == outcome.winner
    )


def _role_of(label: str, study: Study) -> Role:
    if label == BASE:
        return "base"
    if label in parent_labels(study.job.models.sources):
        return "parent"
    known = {trial.label for trial in study.trials_of("baseline")}
    return "baseline" if label in known else "finalist"


def _model(trial: Trial, role: Role) -> AnsweringModel:
    return AnsweringModel(label=trial.label, role=role, key=trial.key)
