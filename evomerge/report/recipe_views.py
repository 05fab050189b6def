"""What a report shows of the recipes of a search: coefficients, routes, and the document itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evomerge.outcome import Selection
from evomerge.recipe import Recipe, read_recipe
from evomerge.report.coefficient_figures import CoefficientView, show_coefficients
from evomerge.report.figures import Figure
from evomerge.report.route_figures import RouteView, show_route
from evomerge.report.slot_figures import depths_figure, slots_figure
from evomerge.report.slot_history import depths_of, slot_history
from evomerge.report.tally import best_of
from evomerge.route import published
from evomerge.sources import Structure
from evomerge.study import Study, Trial
from evomerge.study.notes import STAGES


@dataclass(frozen=True, kw_only=True)
class Merged:
    """A merge of models whose coefficients are shown; view: None where no checkpoint is read."""

    title: str
    label: str
    view: CoefficientView | None


@dataclass(frozen=True, kw_only=True)
class Routes:
    """What is shown of routes: one of them, and all of them over the generations.

    title: whose route is drawn. label: what the record calls it.
    """

    title: str
    label: str
    view: RouteView
    slots: Figure
    depths: Figure


def published_form(recipe: Recipe, structure: Structure | None) -> Recipe:
    """The recipe as mergekit executes it, where it can be written so and the layers are known."""
    if structure is None:
        return recipe
    models = {*recipe.checkpoints, *recipe.stages}
    return published(recipe, dict.fromkeys(models, structure))


def merged_so_far(
    study: Study, selection: Selection | None, structure: Structure | None
) -> list[Merged]:
    """The merges of whole models that there are so far: the stages', and the winner's own."""
    found: list[tuple[str, str, Recipe]] = []
    if selection is not None:
        stages: dict[str, Recipe] = selection.recipe.stages
    else:
        noted = study.noted(STAGES) or ()
        stages = {e["name"]: read_recipe(e["recipe"], where=e["name"]) for e in noted}
    for place, (name, recipe) in enumerate(stages.items(), start=1):
        found.append((f"Coefficients of stage {place}’s winner", name, recipe))
    if selection is not None:
        found.append(("The winner’s coefficients", selection.winner, selection.recipe))
    return [
        Merged(
            title=title,
            label=label,
            view=show_coefficients(recipe, structure, study.job.models) if structure else None,
        )
        for title, label, recipe in found
        if recipe.route is None
    ]


def routes_of(trials: Sequence[Trial], selection: Selection | None) -> Routes | None:
    """The winner's route, else that of the best route there is; None where none is searched."""
    history = slot_history(trials)
    if history is None:
        return None
    genomes = [trial for trial in trials if trial.kind == "genome" and trial.recipe.route]
    best = best_of(genomes) or genomes[0]
    if selection is not None and selection.recipe.route is not None:
        title, label, recipe = "The winner’s route", selection.winner, selection.recipe
    else:
        title, label, recipe = "The best candidate’s route", best.label, best.recipe
    return Routes(
        title=title,
        label=label,
        view=show_route(recipe, history.models),
        slots=slots_figure(history),
        depths=depths_figure(depths_of(genomes)),
    )
