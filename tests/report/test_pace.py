from __future__ import annotations

from dataclasses import replace

import pytest

from evomerge.evaluate.candidate import CandidateKey, Cost
from evomerge.job import JobSpec
from evomerge.report.pace import Pace
from evomerge.study import Trial
from tests.report.studies import layered, make_job


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def trial(
    place: int, *, kind: str = "genome", items: int = 100, failure: str | None = None
) -> Trial:
    """Two seconds of merging and eight of evaluation on 100 items."""
    made = Trial(
        key=CandidateKey(1 if kind == "genome" else 0, place),
        kind="genome",
        label="",
        recipe=layered(0),
        genome=None,
        score=None if failure else 0.5,
        means={},
        items={"kana": items},
        cost=Cost(merge_s=2.0, evaluate_s=0.08 * items, forward_s=0.05 * items, items=items),
        failure=failure,
    )
    return replace(made, kind="genome" if kind == "genome" else "baseline")


def job(candidates: int = 20) -> JobSpec:
    return make_job(budget={"candidates": candidates})


def score(pace: Pace, clock: Clock, count: int, *, wall_s: float) -> list[Trial]:
    trials = []
    for place in range(count):
        clock.now_s += wall_s
        trials.append(trial(place))
        pace.take(trials[-1])
    return trials


def test_nothing_is_known_before_the_first_candidate() -> None:
    assert Pace(job(), Clock()).left_s([]) is None


def test_one_worker_takes_what_the_candidates_cost() -> None:
    clock = Clock()
    pace = Pace(job(), clock)
    trials = score(pace, clock, 5, wall_s=10.0)
    assert pace.left_s(trials) == pytest.approx(15 * 10.0)


def test_parallel_workers_share_what_is_left() -> None:
    clock = Clock()
    pace = Pace(job(), clock)
    clock.now_s += 7.5  # four workers: the first result comes after 10 s, then one each 2.5 s
    trials = score(pace, clock, 16, wall_s=2.5)
    # 4 candidates left; 160 worker seconds passed in 47.5 s, the start and its ramp included.
    assert pace.left_s(trials) == pytest.approx(40.0 * 47.5 / 160.0)


def test_loading_before_the_first_candidate_does_not_count() -> None:
    clock = Clock()
    pace = Pace(job(), clock)
    clock.now_s += 600.0
    trials = score(pace, clock, 5, wall_s=10.0)
    assert pace.left_s(trials) == pytest.approx(150.0)


def test_baselines_tell_of_candidates_by_the_number_of_items() -> None:
    clock = Clock()
    pace = Pace(job(), clock)  # 128 items a generation
    clock.now_s += 2.0 + 0.08 * 512
    baseline = trial(0, kind="baseline", items=512)
    pace.take(baseline)
    assert pace.left_s([baseline]) == pytest.approx(20 * (2.0 + 0.08 * 128))


def test_failed_candidates_are_no_measure_of_cost() -> None:
    clock = Clock()
    pace = Pace(job(), clock)
    trials = score(pace, clock, 4, wall_s=10.0)
    failed = replace(trial(4, failure="no"), cost=Cost(merge_s=2.0))
    assert pace.left_s([*trials, failed]) == pytest.approx(15 * 10.0)


def test_a_new_phase_has_a_pace_of_its_own() -> None:
    clock = Clock()
    pace = Pace(job(), clock)
    score(pace, clock, 4, wall_s=40.0)
    assert pace.scored
    pace.begin_phase()
    assert not pace.scored
    trials = score(pace, clock, 5, wall_s=10.0)
    assert pace.left_s(trials) == pytest.approx(150.0)
