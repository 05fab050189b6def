"""The result of a search on a server is that of a search here: members, types and values."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

import evomerge
from evomerge.api import SearchResult
from evomerge.errors import EvomergeError, InputError, RunError
from evomerge.service.client import results
from evomerge.service.client.results import RemoteResult
from evomerge.study import create_study
from tests.search.answered import make_job
from tests.service.client.reach import server_of
from tests.service.http.house import House

pytestmark = pytest.mark.usefixtures("alone")


def members(kind: type) -> dict[str, Any]:
    """Name -> its signature, or its type for a property."""
    found = {}
    for name in dir(kind):
        member = inspect.getattr_static(kind, name)
        if name.startswith("_") and name != "_repr_html_":
            continue
        if isinstance(member, property):
            assert member.fget is not None
            member = member.fget
        found[name] = inspect.signature(member)
    return found


def test_both_have_the_same_members_with_the_same_signatures() -> None:
    here, there = members(SearchResult), members(RemoteResult)
    assert len(here) > 15
    assert there == here
    for name in there:
        assert inspect.getdoc(getattr(RemoteResult, name)), name


@pytest.mark.parametrize("kind", ["weights", "front"])
def test_a_result_has_the_values_of_the_record(house: House, kind: str) -> None:
    job = house.searched(kind=kind)
    here = evomerge.open_run(house.settings.run_dir(job.id))
    there = server_of(house).job(job.id).result()
    assert vars(there).keys() >= vars(here).keys()
    for name in ("job", "outcome", "candidates", "finished", "better", "verdict", "headline"):
        assert getattr(there, name) == getattr(here, name), name
    for name in ("lines", "gain", "front", "tested"):
        assert getattr(there, name) == getattr(here, name), name
    assert there.finished
    assert there.run_dir == Path(job.id)
    assert there.scores().equals(here.scores())
    assert there.trials_dataframe().equals(here.trials_dataframe())
    assert there._repr_html_() == here._repr_html_()
    assert repr(there) == f"<RemoteResult {job.id}: {here.headline}>"
    names = list(here.trials_dataframe()["candidate"])
    assert there.recipe(trial=names[-1]) == here.recipe(trial=names[-1])
    if kind == "front":
        assert there.front
        point = there.front[0].label
        assert there.recipe(point=point) == here.recipe(point=point) == there.front[0].recipe
        with pytest.raises(RunError, match="front"):
            _ = there.winner
    else:
        assert there.winner == here.winner
        assert there.recipe() == here.recipe() == here.winner.recipe


def test_results_on_items_come_in_parts_and_are_those_of_the_record(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "_CANDIDATES", 2)
    job = house.answered()
    here = evomerge.open_run(house.settings.run_dir(job.id))
    there = server_of(house).job(job.id).result()
    whole = there.items_dataframe()
    assert len(whole) == 6 * 30
    assert whole.equals(here.items_dataframe())
    assert whole.dtypes.equals(here.items_dataframe().dtypes)
    for wanted in ("g-002-i8002", ["g-002-i8002", "g0008-i000"], []):
        assert there.items_dataframe(wanted).equals(here.items_dataframe(wanted))
    with pytest.raises(InputError, match=rf"{job.id}.*g0009-i000"):
        there.items_dataframe("g0009-i000")


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"lost": True},
        {"lost": True, "gained": True},
        {"differ": True, "task": "kana_said"},
        {"item": 3},
        {"models": ["winner", "soup"], "split": "test"},
    ],
)
def test_answers_come_in_pages_and_are_those_of_the_record(
    house: House, monkeypatch: pytest.MonkeyPatch, wanted: dict[str, Any]
) -> None:
    monkeypatch.setattr(results, "_ANSWERS", 4)
    job = house.answered()
    here = evomerge.open_run(house.settings.run_dir(job.id)).answers(**wanted)
    there = server_of(house).job(job.id).result().answers(**wanted)
    assert len(there) > 1
    assert there.equals(here)
    assert there.dtypes.equals(here.dtypes)


def test_a_search_that_has_not_ended_has_a_result_too(house: House) -> None:
    job = house.job(state="running")
    server = server_of(house)
    with pytest.raises(InputError, match="no record yet; it is running"):
        server.open_run(job.id)
    with create_study(house.settings.run_dir(job.id), make_job()):
        pass
    there = server.open_run(job.id)
    here = evomerge.open_run(house.settings.run_dir(job.id))
    assert (there.finished, there.verdict, there.candidates) == (False, None, 0)
    assert there.headline == here.headline
    assert there.lines == [there.headline]
    assert there.scores().empty and there.items_dataframe().empty
    assert there.trials_dataframe().equals(here.trials_dataframe())
    assert there._repr_html_() == here._repr_html_()
    for result in (here, there):
        with pytest.raises(EvomergeError, match="has not ended"):
            _ = result.winner


def test_a_report_is_written_where_it_is_wanted(
    house: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("evomerge.service.http.records.Records._draw", lambda *_: b"<!doctype")
    job = house.searched()
    result = server_of(house).job(job.id).result()
    monkeypatch.chdir(tmp_path)
    assert result.report() == Path(f"{job.id}.html")
    assert result.report(tmp_path / "other.html").read_bytes() == b"<!doctype"
    assert Path(f"{job.id}.html").read_bytes() == b"<!doctype"


def test_what_another_version_wrote_is_one_line(house: House) -> None:
    job = house.job("check", request={"job": {}})
    house.succeed(job.id, {"report": {"job": "kana"}})
    with pytest.raises(EvomergeError, match=r"result\.models: Field required; .* another version"):
        server_of(house).job(job.id).result()
