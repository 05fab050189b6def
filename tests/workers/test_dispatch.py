"""Who is handed what, who is late or lost, and when it is enough; on a clock of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from evomerge.errors import WorkerError
from evomerge.evaluate.candidate import Candidate, CandidateKey, Evaluation, Failed, Scored
from evomerge.recipe import Recipe, RecipeModel
from evomerge.workers.dispatch import Answered, Died, Dispatch, Event, Patience, Ready, Short
from evomerge.workers.processes import Look

DONE = Scored(tasks={})
Behaviour = Callable[[Candidate, int], Event | float | None]
"""(what is asked, how often it was asked before) -> what happens after a second, or after so many;
None: nothing ever does."""


@dataclass
class ScriptedCrew:
    """Workers that do as they are told, in a time that passes while they are waited for."""

    behaviour: Behaviour
    workers: int
    cpu: Callable[[int, float], Look | None] = lambda worker, now_s: Look(stopped=True, cpu_s=0.0)
    starts_after_s: float | None = 5.0
    rooms: list[int] = field(default_factory=list)
    now_s: float = 0.0
    due: list[tuple[float, Event]] = field(default_factory=list)
    asked: list[CandidateKey] = field(default_factory=list)
    replaced: list[int] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def give(self, worker: int, candidate: Candidate) -> None:
        before = self.asked.count(candidate.key)
        self.asked.append(candidate.key)
        happens = self.behaviour(candidate, before)
        if happens is None:
            return
        after_s = happens if isinstance(happens, float) else 1.0
        event = Answered(worker=-1, outcome=DONE) if isinstance(happens, float) else happens
        self.due.append((self.now_s + after_s, _of(event, worker)))

    def wait(self, timeout_s: float) -> Sequence[Event]:
        until = min([self.now_s + timeout_s, *(when for when, _ in self.due)])
        self.now_s = max(self.now_s, until)
        happened = [event for when, event in self.due if when <= self.now_s]
        self.due = [(when, event) for when, event in self.due if when > self.now_s]
        return happened

    def look(self, worker: int) -> Look | None:
        return self.cpu(worker, self.now_s)

    def replace(self, worker: int) -> None:
        self.replaced.append(worker)
        self.due = [(when, event) for when, event in self.due if event.worker != worker]
        if self.starts_after_s is not None:
            self.due.append((self.now_s + self.starts_after_s, Ready(worker=worker)))

    def room(self) -> int:
        return self.rooms.pop(0) if len(self.rooms) > 1 else (self.rooms or [self.workers])[0]


def _of(event: Event, worker: int) -> Event:
    return type(event)(**{**vars(event), "worker": worker})


def candidates(count: int) -> list[Candidate]:
    recipe = Recipe(merge_method="linear", models=(RecipeModel(model="m"),))
    return [
        Candidate(
            key=CandidateKey(1, place), kind="genome", label="", recipe=recipe, items={"task": (0,)}
        )
        for place in range(count)
    ]


def run(
    crew: ScriptedCrew, count: int = 4, patience: Patience | None = None
) -> dict[int, Evaluation]:
    dispatch = Dispatch(
        crew,
        workers=crew.workers,
        say=crew.said.append,
        clock=lambda: crew.now_s,
        patience=patience,
    )
    outcomes: dict[int, Evaluation] = {}
    for candidate, outcome in dispatch.run(candidates(count)):
        assert candidate.key.place not in outcomes, "scored twice"
        outcomes[candidate.key.place] = outcome
    return outcomes


def test_every_candidate_is_handed_out_once_and_nothing_is_said() -> None:
    crew = ScriptedCrew(lambda candidate, before: 1.0, workers=2)
    assert run(crew, 5) == dict.fromkeys(range(5), DONE)
    assert len(crew.asked) == 5
    assert crew.said == []
    assert crew.now_s < 10


def test_a_worker_that_was_stopped_is_replaced_by_the_median_of_its_peers() -> None:
    crew = ScriptedCrew(
        lambda candidate, before: None if candidate.key.place == 0 and not before else 8.0,
        workers=2,
    )
    outcomes = run(crew, 40)
    assert outcomes == dict.fromkeys(range(40), DONE)
    assert crew.replaced == [0]
    assert crew.asked.count(CandidateKey(1, 0)) == 2
    [said] = crew.said
    assert said.startswith("worker 1 stands still, stopped by a signal, and has not answered for 8")
    assert "with g0001-i000" in said


def test_a_worker_is_not_late_before_a_minute_however_fast_others_are() -> None:
    crew = ScriptedCrew(
        lambda candidate, before: 55.0 if candidate.key.place == 0 else 0.1, workers=2
    )
    assert run(crew, 20) == dict.fromkeys(range(20), DONE)
    assert crew.replaced == []


def test_the_first_candidate_has_a_limit_too() -> None:
    crew = ScriptedCrew(lambda candidate, before: 1.0 if before else None, workers=2)
    assert run(crew, 2) == dict.fromkeys(range(2), DONE)
    assert sorted(crew.replaced) == [0, 1]
    assert crew.now_s < 120


def test_a_worker_that_takes_no_processor_time_is_replaced() -> None:
    idle = lambda worker, now_s: Look(stopped=False, cpu_s=0.003 * now_s)  # noqa: E731
    crew = ScriptedCrew(lambda candidate, before: 1.0 if before else None, workers=1, cpu=idle)
    assert run(crew, 1) == {0: DONE}
    assert crew.said[0].startswith("worker 1 stands still and has not answered for 9")


def test_a_slow_worker_that_works_is_named_and_waited_for() -> None:
    busy = lambda worker, now_s: Look(stopped=False, cpu_s=now_s)  # noqa: E731
    crew = ScriptedCrew(
        lambda candidate, before: 500.0 if candidate.key.place == 0 else 1.0, workers=2, cpu=busy
    )
    assert run(crew, 4) == dict.fromkeys(range(4), DONE)
    assert crew.replaced == []
    [said] = crew.said
    assert said.startswith("worker 1 has been at g0001-i000 for 9")
    assert said.endswith("where others take 1 s; it is busy and has until 600 s")


def test_a_worker_that_works_without_an_end_is_replaced_in_the_end() -> None:
    busy = lambda worker, now_s: Look(stopped=False, cpu_s=now_s)  # noqa: E731
    crew = ScriptedCrew(
        lambda candidate, before: None if candidate.key.place == 0 else 1.0, workers=2, cpu=busy
    )
    outcomes = run(crew, 4)
    assert outcomes.pop(0) == Failed(reason="took its worker down 3 times")
    assert outcomes == dict.fromkeys([1, 2, 3], DONE)
    assert 1800 < crew.now_s < 2000


def test_a_worker_that_cannot_be_seen_has_the_limit_alone() -> None:
    crew = ScriptedCrew(
        lambda candidate, before: 1.0 if before or candidate.key.place else None,
        workers=2,
        cpu=lambda worker, now_s: None,
    )
    assert run(crew, 4) == dict.fromkeys(range(4), DONE)
    assert crew.replaced == [0]


def test_a_candidate_that_takes_workers_down_is_failed_and_the_others_are_not() -> None:
    crew = ScriptedCrew(
        lambda candidate, before: (
            Died(worker=-1, reason="gone") if candidate.key.place == 2 else 1.0
        ),
        workers=2,
    )
    outcomes = run(crew, 4)
    assert outcomes.pop(2) == Failed(reason="took its worker down 3 times")
    assert outcomes == dict.fromkeys([0, 1, 3], DONE)
    assert "died (gone) with g0001-i002; another is started in its place" in crew.said[0]


def test_restarts_have_an_end_over_the_whole_search() -> None:
    crew = ScriptedCrew(lambda candidate, before: Died(worker=-1, reason="gone"), workers=2)
    with pytest.raises(WorkerError, match=r"replaced 11 times in this search; the last one died"):
        run(crew, 40)


def test_restarts_that_work_outpaces_do_not_end_a_search() -> None:
    crew = ScriptedCrew(
        lambda candidate, before: (
            Died(worker=-1, reason="gone") if candidate.key.place % 8 == 0 and not before else 1.0
        ),
        workers=2,
    )
    assert len(run(crew, 400)) == 400
    assert len(crew.replaced) == 50


def test_a_machine_that_is_short_for_a_while_costs_a_pause() -> None:
    crew = ScriptedCrew(
        lambda candidate, before: (
            Short(worker=-1, reason="MemoryError: ")
            if candidate.key.place == 1 and before < 2
            else 1.0
        ),
        workers=1,
    )
    assert run(crew, 3) == dict.fromkeys(range(3), DONE)
    assert crew.said == [
        "g0001-i001 is tried again in 1 s, because the machine ran short: MemoryError: ",
        "g0001-i001 is tried again in 5 s, because the machine ran short: MemoryError: ",
    ]
    assert crew.replaced == []


@pytest.mark.parametrize("alive", [True, False])
def test_a_machine_that_stays_short_ends_the_search_and_fails_no_candidate(alive: bool) -> None:
    crew = ScriptedCrew(
        lambda candidate, before: Short(worker=-1, reason="no memory", alive=alive), workers=1
    )
    with pytest.raises(WorkerError, match=r"ran short 4 times while g0001-i000 .*\(no memory\)"):
        run(crew, 1)
    assert len(crew.replaced) == (0 if alive else 4)


def test_a_lost_machine_is_named_once_and_the_others_go_on() -> None:
    lost = Died(worker=-1, reason="node is dead")
    crew = ScriptedCrew(
        lambda candidate, before: lost if candidate.key.place == 1 and not before else 3.0,
        workers=3,
        starts_after_s=None,
        rooms=[2],
    )
    assert run(crew, 9) == dict.fromkeys(range(9), DONE)
    assert crew.said[1:] == [
        "machines are lost: going on with 2 of 3 workers; machines that join are used"
    ]


def test_a_machine_that_joins_is_used() -> None:
    lost = Died(worker=-1, reason="node is dead")
    crew = ScriptedCrew(
        lambda candidate, before: lost if candidate.key.place == 1 and not before else 3.0,
        workers=2,
        starts_after_s=4.0,
        rooms=[1, 2],
    )
    assert run(crew, 9) == dict.fromkeys(range(9), DONE)
    assert crew.said[-1] == "there is room for all 2 workers again"


def test_a_search_without_a_worker_left_ends_at_once() -> None:
    crew = ScriptedCrew(
        lambda candidate, before: Died(worker=-1, reason="node is dead"),
        workers=2,
        starts_after_s=None,
        rooms=[0],
    )
    with pytest.raises(WorkerError, match=r"no worker is left: the machines .* are lost"):
        run(crew, 4)
    assert crew.now_s < 10


def test_machines_that_say_nothing_end_a_search_though_workers_answer() -> None:
    class SilentCrew(ScriptedCrew):
        def room(self) -> int:
            raise WorkerError("the head of the Ray session does not answer any more")

    crew = SilentCrew(lambda candidate, before: 1.0, workers=2)
    with pytest.raises(WorkerError, match="does not answer any more"):
        run(crew, 100)
    assert 10 <= crew.now_s < 15


def test_workers_that_never_start_again_end_a_search() -> None:
    crew = ScriptedCrew(
        lambda candidate, before: Died(worker=-1, reason="killed"), workers=1, starts_after_s=None
    )
    with pytest.raises(WorkerError, match="no worker is left, and none started in 3"):
        run(crew, 4)


def test_what_an_earlier_call_did_not_wait_for_is_not_taken_for_an_outcome() -> None:
    crew = ScriptedCrew(lambda candidate, before: 1.0 + candidate.key.place, workers=2)
    dispatch = Dispatch(crew, workers=2, say=crew.said.append, clock=lambda: crew.now_s)
    first = candidates(2)
    assert next(iter(dispatch.run(first)))[0] is first[0]
    second = candidates(2)  # other candidates under the same keys
    assert sorted(id(candidate) for candidate, _ in dispatch.run(second)) == sorted(map(id, second))
