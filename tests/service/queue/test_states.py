"""Moves between states: what follows an attempt, what a claim may change, what a wish does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from evomerge.service.database.engine import Database, now
from evomerge.service.queue import moves, states
from evomerge.service.queue.claim import claim
from evomerge.service.queue.states import MOVES, Ending
from evomerge.service.settings import Limits
from evomerge.service.store import audit, events, jobs
from evomerge.service.store.events import Fenced, NewEvent
from evomerge.service.store.job import Cause, Job
from evomerge.service.store.people import Project, make_project
from evomerge.service.store.refusals import Conflict, NotFound, OverLimit
from tests.service.jobs import ADMIN, HERE, queued, settings_in

FAILED = Ending(outcome="failed", cause="worker", message="a worker died")
INTERRUPTED = Ending(outcome="interrupted")


def started(database: Database) -> Job:
    job = claim(database, HERE, Limits())
    assert job is not None
    return job


def running(database: Database) -> Job:
    job = started(database)
    begun = states.begin(database, job.id, job.claim, HERE)
    assert begun is not None
    assert begun.runner == HERE
    return begun


def finish(database: Database, job: Job, ending: Ending, backoff_s: float = 0.0) -> Job:
    return states.finish(database, job.id, job.claim, ending, backoff_s=backoff_s)


def wish(database: Database, job: Job, wanted: str, tmp_path: Path, **changes: object) -> Job:
    settings = settings_in(tmp_path)
    return moves.wish(database, job.id, wanted, settings=settings, who=ADMIN, changes=changes)


def test_every_state_can_be_reached_and_left() -> None:
    assert set(MOVES) == {to for targets in MOVES.values() for to in targets}


def test_a_runner_begins_a_claimed_job_once(database: Database, project: Project) -> None:
    queued(database, project.id)
    job = started(database)
    assert states.begin(database, job.id, job.claim, HERE) is not None
    assert states.begin(database, job.id, job.claim, HERE) is None
    assert states.begin(database, job.id, job.claim + 1, HERE) is None


def test_an_attempt_whose_job_was_taken_away_can_change_nothing(
    database: Database, project: Project
) -> None:
    queued(database, project.id)
    old = running(database)
    assert states.lose(database, old.id, old.claim, "killed", backoff_s=0.0) is not None
    new = running(database)
    assert (new.id, new.claim) == (old.id, old.claim + 1)
    for act in (
        lambda: events.append(database, old.id, [NewEvent(name="x", body={})], claim=old.claim),
        lambda: states.look(database, old.id, old.claim),
        lambda: states.renew(database, old.id, old.claim, used_s=1.0),
        lambda: finish(database, old, Ending(outcome="succeeded")),
    ):
        with pytest.raises(Fenced):
            act()
    assert states.lose(database, old.id, old.claim, "killed", backoff_s=0.0) is None
    assert jobs.get(database, old.id).state == "running"


def test_a_success_keeps_its_result(database: Database, project: Project) -> None:
    queued(database, project.id)
    ending = Ending(outcome="succeeded", result={"headline": "better"}, used_s=12.5)
    job = finish(database, running(database), ending)
    assert (job.state, job.result, job.used_s) == ("succeeded", {"headline": "better"}, 12.5)
    assert job.runner is None
    assert job.ended is not None


@pytest.mark.parametrize("cause", ["input", "max_duration", "self_check"])
def test_what_would_fail_again_is_not_tried_again(
    database: Database, project: Project, cause: Cause
) -> None:
    queued(database, project.id)
    ending = Ending(outcome="failed", cause=cause, message="no such task")
    job = finish(database, running(database), ending)
    assert (job.state, job.cause, job.message) == ("failed", cause, "no such task")


def test_what_may_pass_is_tried_again_after_growing_waits(
    database: Database, project: Project
) -> None:
    queued(database, project.id, retries=2)
    waits = []
    for _ in range(2):
        job = finish(database, running(database), FAILED, backoff_s=100.0)
        assert (job.state, job.cause) == ("queued", "worker")
        assert job.not_before is not None
        with database.read() as session:
            waits.append(round(job.not_before - now(session), -1))
        jobs.edit(database, job.id, who=ADMIN, changes={"not_before": None})
    assert waits == [100.0, 200.0]
    job = finish(database, running(database), FAILED)
    assert (job.state, job.cause, job.retries_left) == ("failed", "worker", 0)


def test_a_lost_attempt_takes_no_retry_and_twelve_in_a_row_end_the_job(
    database: Database, project: Project
) -> None:
    queued(database, project.id, retries=0)
    for _ in range(12):
        job = running(database)
        lost = states.lose(database, job.id, job.claim, "killed", backoff_s=0.0)
        assert lost is not None
        assert (lost.state, lost.cause) == ("queued", "lost")
    job = running(database)
    lost = states.lose(database, job.id, job.claim, "killed", backoff_s=0.0)
    assert lost is not None
    assert (lost.state, lost.cause, lost.attempts) == ("failed", "lost", 13)


def test_a_candidate_that_is_done_forgives_what_went_wrong_before(
    database: Database, project: Project
) -> None:
    queued(database, project.id)
    job = running(database)
    states.lose(database, job.id, job.claim, "killed", backoff_s=0.0)
    job = running(database)
    assert job.setbacks == 1
    done = NewEvent(name="candidate_done", body={"candidate": "g0001-i000"})
    events.append(database, job.id, [done], claim=job.claim)
    assert jobs.get(database, job.id).setbacks == 0


def test_a_running_job_pauses_and_goes_on(
    database: Database, project: Project, tmp_path: Path
) -> None:
    queued(database, project.id)
    job = running(database)
    assert wish(database, job, "pause", tmp_path).state == "running"
    assert states.look(database, job.id, job.claim).wanted == "pause"
    assert finish(database, job, INTERRUPTED).state == "paused"
    assert claim(database, HERE, Limits()) is None
    assert wish(database, job, "run", tmp_path).state == "queued"
    assert running(database).attempts == 2


def test_a_pause_that_is_taken_back_too_late_queues_the_job(
    database: Database, project: Project, tmp_path: Path
) -> None:
    queued(database, project.id)
    job = running(database)
    wish(database, job, "pause", tmp_path)
    wish(database, job, "run", tmp_path)
    assert finish(database, job, INTERRUPTED).state == "queued"


@pytest.mark.parametrize("ending", [INTERRUPTED, FAILED])
def test_a_running_job_is_cancelled(
    database: Database, project: Project, ending: Ending, tmp_path: Path
) -> None:
    queued(database, project.id)
    job = running(database)
    wish(database, job, "cancel", tmp_path)
    wish(database, job, "pause", tmp_path)  # a cancelled job does not come back by a pause
    assert finish(database, job, ending).state == "cancelled"


@pytest.mark.parametrize(("wanted", "state"), [("pause", "paused"), ("cancel", "cancelled")])
def test_a_waiting_or_starting_or_lost_job_obeys_too(
    database: Database, project: Project, wanted: str, state: str, tmp_path: Path
) -> None:
    waiting = queued(database, project.id)
    assert wish(database, waiting, wanted, tmp_path).state == state
    queued(database, project.id)
    starting = started(database)
    assert wish(database, starting, wanted, tmp_path).state == "starting"
    assert states.begin(database, starting.id, starting.claim, HERE) is None
    assert jobs.get(database, starting.id).state == state
    queued(database, project.id)
    lost = running(database)
    wish(database, lost, wanted, tmp_path)
    taken = states.lose(database, lost.id, lost.claim, "killed", backoff_s=0.0)
    assert taken is not None
    assert taken.state == state


def test_an_ended_job_is_not_cancelled_and_a_success_not_resumed_as_it_is(
    database: Database, project: Project, tmp_path: Path
) -> None:
    queued(database, project.id)
    job = finish(database, running(database), Ending(outcome="succeeded"))
    for wanted in ("cancel", "pause"):
        with pytest.raises(Conflict, match="ended already"):
            wish(database, job, wanted, tmp_path)
    with pytest.raises(Conflict, match="larger budget"):
        wish(database, job, "run", tmp_path)
    with pytest.raises(Conflict, match="larger budget"):
        wish(database, job, "run", tmp_path, **{"compute.workers": 2})


def test_a_success_goes_on_with_a_larger_budget(
    database: Database, project: Project, tmp_path: Path
) -> None:
    queued(database, project.id)
    job = finish(database, running(database), Ending(outcome="succeeded"))
    resumed = wish(database, job, "run", tmp_path, **{"budget.candidates": 16})
    assert (resumed.state, resumed.changes) == ("queued", {"budget.candidates": 16})
    assert running(database).changes == {"budget.candidates": 16}


def test_a_failed_job_is_retried_at_the_end_of_the_queue(
    database: Database, project: Project
) -> None:
    queued(database, project.id, name="first", retries=0)
    job = finish(database, running(database), FAILED)
    queued(database, project.id, name="second", owner="ann")
    retried = moves.retry(database, job.id, who=ADMIN)
    assert (retried.state, retried.cause, retried.retries_left) == ("queued", None, 1)
    assert started(database).name == "second"
    with pytest.raises(Conflict, match="only a failed or cancelled"):
        moves.retry(database, job.id, who=ADMIN)


def test_ended_jobs_do_not_wait_again_beyond_the_limit(
    database: Database, project: Project, tmp_path: Path
) -> None:
    job = queued(database, project.id, name="first")
    wish(database, job, "cancel", tmp_path)
    other = queued(database, project.id, name="second")
    with pytest.raises(OverLimit):
        moves.retry(database, job.id, who=ADMIN, most_queued=1)
    limited = replace(settings_in(tmp_path), limits=Limits(jobs_queued=1))
    with pytest.raises(OverLimit):
        moves.wish(database, job.id, "run", settings=limited, who=ADMIN)
    # One that is paused waits already.
    moves.wish(database, other.id, "pause", settings=limited, who=ADMIN)
    moves.wish(database, other.id, "run", settings=limited, who=ADMIN)
    moves.wish(database, other.id, "cancel", settings=limited, who=ADMIN)
    assert moves.retry(database, job.id, who=ADMIN, most_queued=1).state == "queued"


def test_jobs_change_places(database: Database, project: Project) -> None:
    made = {name: queued(database, project.id, name=name) for name in "abcd"}
    moves.reorder(database, made["d"].id, before=made["b"].id, who=ADMIN)
    moves.reorder(database, made["a"].id, before=None, who=ADMIN)
    assert [started(database).name for _ in range(4)] == ["d", "b", "c", "a"]


def test_places_never_run_out(database: Database, project: Project) -> None:
    last, first, second = (queued(database, project.id, name=name) for name in "xyz")
    for _ in range(60):
        moves.reorder(database, first.id, before=last.id, who=ADMIN)
        moves.reorder(database, second.id, before=last.id, who=ADMIN)
    assert [started(database).name for _ in range(3)] == ["y", "z", "x"]


def test_a_job_of_another_priority_or_state_gives_no_place(
    database: Database, project: Project
) -> None:
    job, other = queued(database, project.id), queued(database, project.id, priority=3)
    with pytest.raises(Conflict, match="its priority is 3"):
        moves.reorder(database, job.id, before=other.id, who=ADMIN)
    running(database)
    with pytest.raises(Conflict, match="not queued"):
        moves.reorder(database, job.id, before=other.id, who=ADMIN)


def test_a_move_of_another_project_finds_no_job(
    database: Database, project: Project, tmp_path: Path
) -> None:
    job = queued(database, project.id)
    scope = frozenset({make_project(database, "other", who=ADMIN).id})
    settings = settings_in(tmp_path)
    for act in (
        lambda: moves.wish(database, job.id, "cancel", settings=settings, who=ADMIN, scope=scope),
        lambda: moves.retry(database, job.id, who=ADMIN, scope=scope),
        lambda: moves.reorder(database, job.id, before=None, who=ADMIN, scope=scope),
    ):
        with pytest.raises(NotFound, match="no such job"):
            act()


def test_every_wish_is_in_the_audit_log_and_a_refused_one_is_not(
    database: Database, project: Project, tmp_path: Path
) -> None:
    job = queued(database, project.id)
    wish(database, job, "pause", tmp_path)
    wish(database, job, "run", tmp_path)
    wish(database, job, "cancel", tmp_path)
    with pytest.raises(Conflict):
        wish(database, job, "cancel", tmp_path)
    acts = [entry.act for entry in audit.find(database, what=job.id).items]
    assert acts == ["job.cancel", "job.resume", "job.pause", "job.submit"]
