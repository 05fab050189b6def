from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from evomerge.evaluate.candidate import CandidateKey, Cost, Kind
from evomerge.report.recipe_views import depths_figure, slot_groups, slots_figure
from evomerge.report.slot_history import Known, SlotHistory, Switch, depths_of, slot_history
from evomerge.space import SearchSpace, build_space
from evomerge.study import Trial
from tests.report.studies import BASE, SOURCES, layered, make_structure

FIRST, SECOND = SOURCES


def space_of(*, depth: int = 4, **routes: object) -> SearchSpace:
    return build_space(
        {"routes": {"repeats": 2, **routes}},
        base=BASE,
        sources=SOURCES,
        structure=make_structure(depth),
        out_dtype="float32",
        seed=0,
    )


def trial_of(
    space: SearchSpace,
    switches: Mapping[str, float],
    *,
    key: tuple[int, int] = (1, 0),
    kind: Kind = "genome",
    score: float | None = 0.5,
) -> Trial:
    """A trial whose genome is the space's start, but for the genes given by name."""
    genome = [
        switches.get(gene.name, position)
        for gene, position in zip(space.genes, space.start, strict=True)
    ]
    return Trial(
        key=CandidateKey(*key),
        kind=kind,
        label="",
        recipe=space.decode(np.array(genome)),
        genome=tuple(genome),
        score=score,
        means={},
        items={},
        cost=Cost(),
        failure=None if score is not None else "gone",
        parameters={
            gene.name: gene.value(position)
            for gene, position in zip(space.genes, genome, strict=True)
        },
    )


def history_of(*trials: Trial) -> SlotHistory:
    history = slot_history(trials)
    assert history is not None
    return history


def shares_of(history: SlotHistory) -> dict[Switch, tuple[float, ...]]:
    return dict(zip(history.switches, history.shares, strict=True))


def test_slots_come_in_the_order_of_the_route_without_the_two_fixed_ones() -> None:
    switches = history_of(trial_of(space_of(), {})).switches
    first, second = "arithmetic", "japanese"
    assert switches == (
        *(Switch(1, first, layer) for layer in (1, 2)),
        *(Switch(1, second, layer) for layer in range(4)),
        *(Switch(2, first, layer) for layer in range(4)),
        *(Switch(2, second, layer) for layer in range(4)),
    )


def test_shares_are_of_the_candidates_of_a_generation() -> None:
    space = space_of()
    on = {"in.1.japanese.02": 1.0}
    history = history_of(
        trial_of(space, on),
        trial_of(space, {}, key=(1, 1)),
        trial_of(space, on, key=(1, 2), score=None),  # what fails was proposed nevertheless
        trial_of(space, on, key=(2, 0)),
    )
    assert history.generations == (1, 2)
    shares = shares_of(history)
    assert shares[Switch(1, "japanese", 2)] == pytest.approx((2 / 3, 1.0))
    assert shares[Switch(1, "arithmetic", 1)] == (1.0, 1.0)
    assert shares[Switch(2, "japanese", 2)] == (0.0, 0.0)


def test_finalists_and_merges_are_not_counted() -> None:
    space = space_of()
    merge = Trial(**{**vars(trial_of(space, {}, key=(1, 0))), "recipe": layered(0)})
    history = history_of(
        merge,
        trial_of(space, {}, key=(2, 0)),
        trial_of(space, {"in.2.japanese.00": 1.0}, key=(-1, 0), kind="finalist"),
    )
    assert history.generations == (2,)
    assert shares_of(history)[Switch(2, "japanese", 0)] == (0.0,)


def test_a_search_without_routes_has_no_history() -> None:
    space = space_of()
    assert slot_history([Trial(**{**vars(trial_of(space, {})), "recipe": layered(0)})]) is None
    assert slot_history([trial_of(space, {}, key=(-1, 0), kind="finalist")]) is None


def test_switches_that_a_limit_overrules_are_not_on_the_route() -> None:
    space = space_of(max_layers=4)
    wanted = {f"in.2.japanese.{layer:02d}": 0.7 + 0.1 * layer for layer in range(3)}
    shares = shares_of(history_of(trial_of(space, {**wanted, "in.1.arithmetic.01": 0.6})))
    taken = [switch for switch, (share,) in shares.items() if share]
    assert taken == [Switch(1, "arithmetic", 2), Switch(2, "japanese", 2)]


@pytest.mark.parametrize("depth", [2, 3, 5])
@pytest.mark.parametrize("repeats", [1, 2, 3])
@pytest.mark.parametrize("models", ["first_source", "sources", "sources_and_base"])
def test_shares_agree_with_the_routes_of_any_space(depth: int, repeats: int, models: str) -> None:
    space = space_of(
        depth=depth, repeats=repeats, models=models, scales={"per": "pair", "low": 0.5, "high": 2}
    )
    if not any(gene.binary for gene in space.genes):
        return  # one model of two layers, once: nothing to switch
    draw = np.random.default_rng(0)
    trials = [
        trial_of(space, {gene.name: float(draw.random()) for gene in space.genes}, key=(1, place))
        for place in range(7)
    ]
    history = history_of(*trials)
    assert len(history.switches) == sum(gene.binary for gene in space.genes)
    layers = sum(
        end - first
        for trial in trials
        for first, end in (stretch.layers for stretch in trial.recipe.route or ())
    )
    inside = layers - 2 * len(trials)
    assert sum(share for (share,) in history.shares) * len(trials) == pytest.approx(inside)


def test_models_are_known_by_both_their_names() -> None:
    space = space_of()
    history = history_of(trial_of(space, {"in.1.japanese.02": 1.0}))
    assert history.models == (
        Known(name="arithmetic", reference=FIRST, depth=4),
        Known(name="japanese", reference=SECOND, depth=4),
    )
    assert history_of(trial_of(space, {})).models[1].reference is None


def test_depths_are_those_of_a_generations_routes() -> None:
    space = space_of()
    (depths,) = depths_of(
        [
            trial_of(space, {}, score=0.4),
            trial_of(space, {"in.1.japanese.02": 1.0}, key=(1, 1), score=0.6),
            trial_of(space, {"in.1.arithmetic.01": 0.0}, key=(1, 2), score=None),
        ]
    )
    assert (depths.generation, depths.lengths, depths.best) == (1, (4, 5, 3), 5)
    assert depths.mean == pytest.approx(4.0)


def test_a_generation_of_failures_has_depths_and_no_best() -> None:
    (depths,) = depths_of([trial_of(space_of(), {}, score=None)])
    assert (depths.mean, depths.best) == (4.0, None)
    assert depths_figure([depths]).spec["data"][1]["y"] == [None]


def test_the_heatmap_has_a_row_for_each_slot_and_the_names_of_their_groups() -> None:
    history = history_of(trial_of(space_of(), {}), trial_of(space_of(), {}, key=(2, 0)))
    (heatmap,) = slots_figure(history).spec["data"]
    assert [list(row) for row in heatmap["z"]] == [list(row) for row in history.shares]
    assert list(heatmap["x"]) == [1, 2]
    assert heatmap["hovertext"][0][1] == "arithmetic layer 1, pass 1<br>generation 2: 100%"
    assert slot_groups(history) == [
        ("arithmetic<br>pass 1", 0, 1),
        ("japanese<br>pass 1", 2, 5),
        ("arithmetic<br>pass 2", 6, 9),
        ("japanese<br>pass 2", 10, 13),
    ]


def test_both_figures_have_one_axis_of_generations() -> None:
    trials = [trial_of(space_of(), {}, key=(number, 0)) for number in (4, 5, 6)]

    def axis(layout: Mapping[str, Any]) -> object:
        return layout["xaxis"]["range"], layout["margin"]["l"], layout["margin"]["r"]

    slots = slots_figure(history_of(*trials)).spec["layout"]
    depths = depths_figure(depths_of(trials)).spec["layout"]
    assert axis(slots) == axis(depths)
    assert slots["xaxis"]["range"] == [3.5, 6.5]
