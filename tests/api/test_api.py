"""What a user of the library calls: the command's own searches, with values to work with."""

from __future__ import annotations

import doctest
import importlib
import json
import pickle
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import yaml

import evomerge
import evomerge.api
from evomerge.api.arguments import read_job
from evomerge.errors import Interrupt, is_interrupt
from evomerge.evaluate.candidate import CandidateKey
from evomerge.job import parse_job
from evomerge.search import run
from evomerge.search.events import (
    CandidateDone,
    Checking,
    Event,
    Finished,
    GenerationDone,
    Planned,
    Started,
)
from evomerge.search.results.selection import Selection
from evomerge.study import read_study
from tests.checkpoints import load_tensors
from tests.search.jobs import JOBS, LightPool, job_document, write_models

ROOMS = ("calibrate", "evaluate", "export", "grid", "merge", "report", "search")
"""Functions that have the name of a module of the package."""


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return job_document(folder)


@pytest.fixture
def scored_lightly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Candidates are scored by a hash, at once."""
    monkeypatch.setattr(run, "open_job_pool", lambda *given, **named: LightPool())


@pytest.fixture(scope="module")
def told(
    document: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[evomerge.SearchResult, list[Event]]:
    """A search with real models, and what it told of."""
    events: list[Event] = []
    run_dir = tmp_path_factory.mktemp("runs") / "run"
    return evomerge.search(document, run_dir, observe=events.append), events


def contents(run_dir: Path) -> list[str]:
    with read_study(run_dir) as study:
        return [
            repr((t.key, t.genome, t.score, t.means, t.items)) + repr(study.items_of(t.key))
            for t in study.trials
        ]


def test_importing_it_loads_nothing_but_what_python_has() -> None:
    code = (
        "import sys, evomerge; "
        "print([name for name in ('numpy', 'yaml', 'pydantic', 'typer', 'torch', 'pandas') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_name_is_offered_and_no_room_takes_the_place_of_a_function() -> None:
    for name in ROOMS:
        assert importlib.import_module(f"evomerge.{name}") is sys.modules[f"evomerge.{name}"]
        assert getattr(evomerge, name) is getattr(evomerge.api, name)
    for name in evomerge.__all__:
        assert getattr(evomerge, name) is not None
    with pytest.raises(AttributeError):
        evomerge.nothing_of_the_kind  # type: ignore[attr-defined]  # noqa: B018
    assert set(evomerge.__all__) <= set(dir(evomerge))
    with patch.object(evomerge, "search", None):
        assert evomerge.search is None
    assert evomerge.search is evomerge.api.search


def test_a_job_is_a_path_a_mapping_or_what_was_read(
    document: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scored_lightly: None,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(document))
    changes = {"budget.candidates": 8, "optimizer.seed": 4}
    seed = {"optimizer.seed": np.float64(4.0).astype(int)}
    base, sources = document["models"]["base"], document["models"]["sources"]
    models = {"base": Path(base), "sources": tuple(map(Path, sources))}
    spec = evomerge.load_job(path, overrides=["budget.candidates=8", "optimizer.seed=4"])
    found = [
        contents(evomerge.search(job, run_dir, set=changed).run_dir)
        for job, run_dir, changed in (
            (path, None, changes),
            (str(path), "text", ["budget.candidates=8", "optimizer.seed=4"]),
            (document, Path("mapping"), changes),
            (MappingProxyType(document), "proxy", {"budget.candidates": np.int64(8), **seed}),
            ({**document, "models": models}, "paths", ["budget.candidates=8", "optimizer.seed=4"]),
            (spec, "spec", None),
        )
    ]
    assert found[0] and all(other == found[0] for other in found[1:])
    assert (tmp_path / "runs" / "sums" / "job.yaml").exists(), "the run directory has its name"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"budget.candidate": 8}, "budget.candidate: unknown key; did you mean candidates?"),
        ({"models.base": "nowhere"}, "models.base: nowhere: no such folder"),
        ({"name": object()}, "name: object: not a value of a job; give a number, a text"),
        ({"budget.candidates": float("nan")}, "budget.candidates: nan is not finite"),
        ({"optimizer": {3: 4}}, "optimizer: 3: a key of a job must be a text"),
        ({"name=x": "y"}, "set: name=x: not a key of a job"),
        ([8], "set: list: give a mapping"),
        ("budget.candidates", "--set budget.candidates: write it as key.subkey=value"),
    ],
)
def test_a_wrong_job_is_refused_in_one_line(
    document: dict[str, Any], tmp_path: Path, changes: Any, words: str
) -> None:
    with pytest.raises(evomerge.InputError) as refused:
        evomerge.search(document, tmp_path / "run", set=changes)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_every_event_comes_once_in_order_and_stands_in_a_file(
    told: tuple[evomerge.SearchResult, list[Event]],
) -> None:
    result, events = told
    assert [type(event) for event in events[:2]] == [Checking, Started]
    assert isinstance(events[-1], Finished)
    done = [event for event in events if isinstance(event, CandidateDone)]
    with read_study(result.run_dir) as study:
        recorded = {trial.key: trial for trial in study.trials}
    assert Counter(event.candidate for event in done) == Counter(list(recorded))
    assert all(event.score == recorded[event.candidate].score for event in done)
    generations = [event for event in events if isinstance(event, GenerationDone)]
    assert [event.generation for event in generations] == [1, 2, 3]
    assert all(event.scored == 4 for event in generations)
    planned = [event.phase for event in events if isinstance(event, Planned)]
    assert planned[-2:] == ["validation", "test"]
    lines = (result.run_dir / "events.jsonl").read_text().splitlines()
    kept = [json.loads(line) for line in lines]
    assert all(line.pop("at").endswith("+00:00") for line in kept)
    assert kept == [json.loads(json.dumps(event.to_json())) for event in events[1:]]
    assert kept[0] == {
        "event": "started",
        "job": "sums",
        "run_dir": str(result.run_dir),
        "recorded": 0,
    }


def test_a_result_holds_what_the_record_says(
    told: tuple[evomerge.SearchResult, list[Event]],
) -> None:
    result, _ = told
    outcome = result.outcome
    assert isinstance(outcome, Selection)
    gain = result.gain
    assert gain is not None
    assert (gain.value, gain.low, gain.high) == (
        outcome.gain.value,
        outcome.gain.low,
        outcome.gain.high,
    )
    assert gain.against == outcome.best_parent
    assert gain.settled == (result.verdict == "gained")
    assert result.winner.recipe.to_yaml() == outcome.recipe.to_yaml()
    assert result.headline in repr(result)
    scores = result.scores()
    assert list(scores.index) == [summary.label for summary in outcome.test]
    row = scores.iloc[0]
    assert row["role", ""] == "winner"
    assert row["score", "value"] == outcome.test[0].score.value
    assert row["sums_choice/acc", "high"] == outcome.test[0].tasks["sums_choice"]["acc"].high
    page = result._repr_html_()
    assert page.count("<tr>") == 1 + len(outcome.test)
    again = evomerge.open_run(result.run_dir)
    assert again.headline == result.headline
    assert again.finished and again.better == result.better


def test_tables_hold_every_candidate_and_every_item(
    told: tuple[evomerge.SearchResult, list[Event]],
) -> None:
    result, _ = told
    trials = result.trials_dataframe()
    with read_study(result.run_dir) as study:
        assert list(trials["candidate"]) == [str(trial.key) for trial in study.trials]
        genomes = trials[trials["kind"] == "genome"]
        gene = next(column for column in trials.columns if column.startswith("gene: "))
        assert genomes[gene].notna().all()
        winner = str(result.winner.candidate)
        items = result.items_dataframe([winner])
        expected = study.items_of(CandidateKey.parse(winner))
    for task, found in items.groupby("task"):
        [metric] = set(found["metric"])
        assert tuple(found["item"]) == expected[task].ids
        assert tuple(found["value"]) == expected[task].metrics[metric]
    everything = result.items_dataframe()
    assert set(everything["candidate"]) == set(trials[trials["failure"].isna()]["candidate"])
    with pytest.raises(evomerge.RunError, match="no candidate g0099-i000"):
        result.items_dataframe(["g0099-i000"])


def test_the_winner_is_exported_merged_again_evaluated_and_reported(
    told: tuple[evomerge.SearchResult, list[Event]], document: dict[str, Any], tmp_path: Path
) -> None:
    result, _ = told
    exported = result.export(tmp_path / "exported")
    evomerge.merge(tmp_path / "exported" / "recipe.yaml", tmp_path / "merged")
    first, second = (load_tensors(tmp_path / name) for name in ("exported", "merged"))
    assert {n: t.tolist() for n, t in first.items()} == {n: t.tolist() for n, t in second.items()}
    assert exported.verified
    adapter = result.export(tmp_path / "adapter", as_adapter=True, rank=3).weights.adapter
    assert adapter is not None and adapter.rank == 3 and not adapter.exact
    summary = evomerge.evaluate(tmp_path / "exported", document)
    assert summary.score == result.winner.scores.score
    assert result.report(tmp_path / "page.html").read_text().startswith("<!doctype html>")


def test_what_an_observer_raises_ends_a_search_that_goes_on_to_the_same_record(
    told: tuple[evomerge.SearchResult, list[Event]], document: dict[str, Any], tmp_path: Path
) -> None:
    def interrupt(event: Event) -> None:
        if isinstance(event, CandidateDone) and event.candidate == CandidateKey(2, 1):
            raise KeyboardInterrupt

    run_dir = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        evomerge.search(document, run_dir, observe=interrupt)
    stopped = evomerge.open_run(run_dir)
    assert not stopped.finished and stopped.gain is None and stopped.verdict is None
    assert stopped.scores().empty
    assert len(stopped.trials_dataframe()) > 0
    assert "Not finished: " in stopped.headline
    with pytest.raises(evomerge.RunError, match="has not ended"):
        stopped.winner  # noqa: B018
    with (run_dir / "events.jsonl").open("a") as log:
        log.write('{"cut sho')  # as a kill may leave it
    resumed = evomerge.resume(run_dir)
    assert contents(resumed.run_dir) == contents(told[0].run_dir)
    lines = (run_dir / "events.jsonl").read_text().splitlines()
    assert [line for line in lines if not line.endswith("}")] == ['{"cut sho']


def test_a_front_has_points_and_no_winner(
    document: dict[str, Any], tmp_path: Path, scored_lightly: None
) -> None:
    result = evomerge.search({**document, **JOBS["pareto"]}, tmp_path / "run")
    assert result.front and result.gain is None
    assert list(result.scores().index)[: len(result.front)] == [p.label for p in result.front]
    with pytest.raises(evomerge.RunError, match="ended with a front"):
        result.winner  # noqa: B018


def test_events_are_not_written_through_a_link(
    document: dict[str, Any], tmp_path: Path, scored_lightly: None
) -> None:
    run_dir, outside = tmp_path / "run", tmp_path / "outside"
    evomerge.search(document, run_dir, set={"budget.candidates": 4})
    (run_dir / "events.jsonl").unlink()
    (run_dir / "events.jsonl").symlink_to(outside)
    with pytest.raises(evomerge.StorageError, match="the record cannot be written"):
        evomerge.resume(run_dir)
    assert not outside.exists()


def test_the_examples_of_the_docstrings_run(
    document: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scored_lightly: None,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(document))
    tried = 0
    for name in ("search", "resume", "open_run"):
        function: Callable[..., object] = getattr(evomerge, name)
        for example in doctest.DocTestFinder(recurse=False).find(function, name):
            failed, count = doctest.DocTestRunner().run(example)
            assert failed == 0
            tried += count
    assert tried > 5


def test_a_job_reads_back_as_it_was_given(document: dict[str, Any]) -> None:
    spec = parse_job(yaml.safe_dump(document), where="job")
    assert read_job(spec) is spec
    changed = read_job(spec, {"report": ["sums_choice"], "optimizer": {"seed": 9}})
    assert changed.report == ("sums_choice",) or list(changed.report) == ["sums_choice"]
    assert changed.optimizer.seed == 9


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda d, f: evomerge.search(d, f"{f}/a\0b"), "embedded null"),
        (lambda d, f: evomerge.search(d, f / ("a" * 300)), "File name too long; check the path"),
        (lambda d, f: evomerge.evaluate(f, d, split="nope"), "split: nope is not a split"),
        (
            lambda d, f: evomerge.merge({"merge_method": "linear"}, f / "out"),
            "recipe: models: missing",
        ),
        (
            lambda d, f: evomerge.merge({}, f / "out", as_adapter=True, rank=2.5),  # type: ignore[arg-type]
            "--rank: 2.5 is no rank; give a whole number from 1",
        ),
        (
            lambda d, f: evomerge.merge({}, f / "out", as_adapter=True, rank="8"),  # type: ignore[arg-type]
            "--rank: '8' is no rank",
        ),
        (lambda d, f: evomerge.export(f, f / "out", rank=2), "give --as-adapter too"),
        (lambda d, f: evomerge.grid({"name": "x"}, f / "grid"), "grid: models"),
        (lambda d, f: evomerge.open_run(f), "no search here"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(
    document: dict[str, Any], tmp_path: Path, call: Callable[..., object], words: str
) -> None:
    with pytest.raises(evomerge.InputError) as refused:
        call(document, tmp_path)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_search_stays_where_it_began_wherever_the_program_goes(
    document: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scored_lightly: None,
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)

    def go_away(event: Event) -> None:
        if isinstance(event, GenerationDone):
            monkeypatch.chdir(tmp_path / "elsewhere")

    result = evomerge.search(document, "run", observe=go_away)
    assert result.run_dir == tmp_path / "run"
    assert len(result.trials_dataframe()) > 12
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_what_is_kept_of_a_search_cannot_write_its_record(
    document: dict[str, Any], tmp_path: Path, scored_lightly: None
) -> None:
    kept: list[Event] = []
    evomerge.search(document, tmp_path / "run", observe=kept.append)
    [started] = [event for event in kept if isinstance(event, Started)]
    assert started.study.trials
    with pytest.raises(evomerge.RunError, match="the record is closed"):
        started.study.note("facts", {})
    with pytest.raises(evomerge.RunError, match="the record is closed"):
        started.study.keep_job()
    assert pickle.loads(pickle.dumps(kept)) == kept, "events can be sent to another process"


def test_each_generation_is_told_once_whenever_a_process_ends(
    document: dict[str, Any], tmp_path: Path, scored_lightly: None
) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, CandidateDone) and event.candidate == CandidateKey(2, 3):
            raise KeyboardInterrupt

    told: list[Event] = []
    with pytest.raises(KeyboardInterrupt):
        evomerge.search(document, tmp_path / "run", observe=stop)
    evomerge.resume(tmp_path / "run", observe=told.append)
    assert [e.generation for e in told if isinstance(e, GenerationDone)] == [2, 3]
    again: list[Event] = []
    evomerge.resume(tmp_path / "run", observe=again.append)
    kinds = {type(event) for event in again}
    assert not kinds & {CandidateDone, GenerationDone, Planned}


def test_an_interrupt_is_none_of_a_task_under_a_handler_of_the_program_s_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def handler(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, handler)
    try:
        assert is_interrupt(KeyboardInterrupt())
        monkeypatch.setattr(Interrupt, "expected", True)  # as under the command line's handler
        assert is_interrupt(Interrupt())
        assert not is_interrupt(KeyboardInterrupt())
    finally:
        signal.signal(signal.SIGINT, before)
