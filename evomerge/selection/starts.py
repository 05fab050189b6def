"""What a search begins with, and which of it a candidate must stand beside on validation items.

Base, parents, soups and default merges were scored as generation zero, on search items. A search
must not end below the best of them, so all that those items leave a chance are scored again.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from evomerge.candidate import ItemIds
from evomerge.evaluate.objective import Objective, Scores
from evomerge.evaluate.simultaneous import simultaneous_differences
from evomerge.ledger import Ledger
from evomerge.optimize.baselines import BASE, UNIFORM_SOUP, parent_labels
from evomerge.selection.finalists import Entrant, entrant_of, items_of
from evomerge.standing import Role
from evomerge.study import Trial

RULED_OUT = 0.001
"""How often, at most, the best start is not scored on validation items: once in 1,000 searches."""


def starts_to_validate(ledger: Ledger) -> list[Entrant]:
    """The starts that may be the best one, in the order in which they were made.

    Always the base, the best parent and the best untuned merge; all parents where a constraint
    asks for the best of them. Where a space excludes its starts, as pruning does, only the best of
    those that it can express: a smaller model is wanted although a larger one is better.
    """
    space, objective = ledger.preparation.space, ledger.preparation.objective
    fittest = ledger.fittest("baseline")
    roles = roles_of(ledger)
    if space.exclusive:
        inside = [trial for trial in fittest if space.encode(trial.recipe) is not None]
        return [entrant_of(trial, "baseline") for trial in inside[:1]]
    always = {trial.label for trial in fittest if roles[trial.label] == "base"}
    for role in ("parent", "baseline"):
        always |= {trial.label for trial in [t for t in fittest if roles[t.label] == role][:1]}
    if any(constraint.of == "best_source" for constraint in objective.constraints):
        always |= {trial.label for trial in fittest if roles[trial.label] == "parent"}
    out = _ruled_out(ledger, fittest)
    made = sorted(fittest, key=lambda trial: trial.key)
    return [
        entrant_of(trial, roles[trial.label])
        for trial in made
        if trial.label in always or trial.label not in out
    ]


def rivals(ledger: Ledger, known: Sequence[str] = ()) -> list[Entrant]:
    """What the winner stands beside on the test items: base, parents, soup, the starts `known`.

    Then what the stages before delivered. Where a space excludes its starts the best one by search
    score is there too, for it is not among the finalists.
    """
    baselines = {trial.label: trial for trial in ledger.study.trials_of("baseline")}
    parents = parent_labels(ledger.preparation.job.models.sources)
    roles = roles_of(ledger)
    best = ledger.fittest("baseline")[:1] if ledger.preparation.space.exclusive else []
    labels = dict.fromkeys([BASE, *parents, UNIFORM_SOUP, *known, *(trial.label for trial in best)])
    return [
        *(entrant_of(baselines[label], roles[label]) for label in labels),
        *stage_winners(ledger),
    ]


def stage_winners(ledger: Ledger) -> list[Entrant]:
    """What the stages before delivered: a stage must not end below them."""
    winners = ledger.preparation.winners
    entrants = []
    for place, (name, recipe) in enumerate(winners.items()):
        before = dict(list(winners.items())[:place])
        whole = recipe.model_copy(update={"stages": before}).without_unused()
        entrants.append(Entrant(label=f"winner of {name}", role="stage", recipe=whole))
    return entrants


def roles_of(ledger: Ledger) -> dict[str, Role]:
    """Label -> what a start is: the base, a parent, or a merge that nothing was tuned for."""
    parents = parent_labels(ledger.preparation.job.models.sources)
    known: dict[str, Role] = {BASE: "base", **dict.fromkeys(parents, "parent")}
    labels = [trial.label for trial in ledger.study.trials_of("baseline")]
    return {label: known.get(label, "baseline") for label in labels}


def _ruled_out(ledger: Ledger, trials: Sequence[Trial]) -> set[str]:
    """Labels of those that another is surely above, on the search items that both were scored on.

    Over all pairs at once, so that the best is among them at most RULED_OUT of the time. The other
    must be no lower in any constraint's metric either: one that breaks a constraint rules out none.
    """
    objective = ledger.preparation.objective
    scores = {trial.label: items_of(ledger, trial) for trial in trials}
    pairs = [
        (a, b)
        for a, b in itertools.combinations(trials, 2)
        if a.recipe != b.recipe and _ids(scores[a.label]) == _ids(scores[b.label])
    ]
    differences = simultaneous_differences(
        objective,
        [(scores[a.label], scores[b.label]) for a, b in pairs],
        seed=ledger.preparation.job.optimizer.seed,
        confidence=1.0 - RULED_OUT,
    )
    out = set()
    for (a, b), difference in zip(pairs, differences, strict=True):
        if difference.settled:
            above, below = (a, b) if difference.interval.value > 0.0 else (b, a)
            if _as_constrained(objective, above, below):
                out.add(below.label)
    return out


def _ids(scores: Scores) -> ItemIds:
    return {task: items.ids for task, items in scores.items()}


def _as_constrained(objective: Objective, above: Trial, below: Trial) -> bool:
    """Whether `above` is no lower than `below` in any metric that a constraint holds."""
    metrics = [constraint.metric for constraint in objective.constraints]
    return all(above.means[m.task][m.key] >= below.means[m.task][m.key] for m in metrics)
