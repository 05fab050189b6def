"""What can be read of a damaged record is saved, and a search goes on from it to the same end."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

import evomerge
from evomerge.cli import app
from evomerge.errors import RunError
from evomerge.study import read_study, repair_study, resume_study
from tests.search.jobs import JOBS, LightPool
from tests.search.test_lost_items import models, prepared, run
from tests.study.records import contents_of, execute, files_of, write_record

__all__ = ["models"]

PAGE = 4096


def destroy(database: Path, pages: Iterable[int]) -> None:
    """Overwrite pages of a database."""
    content = bytearray(database.read_bytes())
    for page in pages:
        content[(page - 1) * PAGE : page * PAGE] = b"\xa5" * PAGE
    database.write_bytes(content)


def leaves_of(database: Path, tables: Sequence[str]) -> list[int]:
    """The pages that hold the rows of the tables."""
    with closing(sqlite3.connect(database)) as connection:
        query = "SELECT rootpage FROM sqlite_master WHERE name = ?"
        roots = [connection.execute(query, (table,)).fetchone()[0] for table in tables]
    content = database.read_bytes()
    return [page for root in roots for page in leaves(content, root)]


def leaves(content: bytes, page: int) -> list[int]:
    """The pages with rows at or below a page of a table, by the format of SQLite's files."""
    at = (page - 1) * PAGE

    def number(place: int, size: int) -> int:
        return int.from_bytes(content[at + place : at + place + size], "big")

    if content[at] == 13:
        return [page]
    cells = [number(12 + 2 * cell, 2) for cell in range(number(3, 2))]
    below = [*(number(cell, 4) for cell in cells), number(8, 4)]
    return [leaf for each in below for leaf in leaves(content, each)]


@pytest.mark.parametrize("job", JOBS)
def test_a_search_goes_on_from_what_was_saved_to_the_same_end(
    models: Path, tmp_path: Path, job: str, faults: bool
) -> None:
    if job != "hybrid" and not faults:
        pytest.skip("stages have notes that no other search has; --faults tries all kinds")
    preparation, ended = prepared(models, job), tmp_path / "ended"
    whole = run(ended, preparation, LightPool())
    with read_study(ended) as study:
        count = len(study.trials)
    rng, saved = random.Random(5), 0
    for tried in range(8 if faults else 1):
        run_dir = tmp_path / f"run{tried}"
        shutil.copytree(ended, run_dir)
        database = run_dir / "study.db"
        if tried == 0:
            rows = ("trial_user_attributes", "trial_values")
            destroy(database, leaves_of(database, rows)[1::4])
        else:
            pages = database.stat().st_size // PAGE
            destroy(database, rng.sample(range(1, pages + 1), 3))
        with pytest.raises(RunError, match=r"is damaged.*evomerge repair"):
            resume_study(run_dir)
        try:
            found = repair_study(run_dir)
        except RunError:  # notes that are needed, or all tables, were in those pages
            continue
        saved += 1
        assert found.damage is not None
        assert found.trials + (found.lost or 0) == count
        assert run(run_dir, preparation, LightPool()) == whole
        assert repair_study(run_dir).whole
    assert saved >= (4 if faults else 1)


def test_the_command_says_what_was_saved_and_what_comes_next(tmp_path: Path) -> None:
    run_dir = write_record(tmp_path / "run")
    damaged = _lose_a_trial(run_dir)
    result = CliRunner().invoke(app, ["repair", str(run_dir)])
    assert result.exit_code == 0, result.output
    text = result.stdout
    assert "the database was damaged: trial 1 differs from what was recorded" in text
    assert "saved: 2 recorded models" in text
    assert "lost: 1\n" in text
    assert f"next: evomerge resume {run_dir}" in text
    assert (run_dir / "study.db.damaged-1").read_bytes() == damaged
    with read_study(run_dir) as study:
        assert [trial.label for trial in study.trials] == ["number 0", "number 2"]


def _lose_a_trial(run_dir: Path) -> bytes:
    wanted = "trial_id = 2 AND key = 'label'"
    execute(run_dir, f"UPDATE trial_user_attributes SET value_json = '\"x\"' WHERE {wanted}")
    return (run_dir / "study.db").read_bytes()


def test_a_record_without_damage_is_left_as_it_is(tmp_path: Path) -> None:
    run_dir = write_record(tmp_path / "run")
    before = files_of(run_dir)
    found = evomerge.repair(run_dir)
    assert found.whole
    assert found.lines() == [f"{run_dir}: nothing is damaged; 3 recorded models"]
    assert files_of(run_dir) == before
    assert json.loads(json.dumps(found.to_json()))["whole"]


def test_lost_item_results_are_named(tmp_path: Path) -> None:
    run_dir = write_record(tmp_path / "run")
    (run_dir / "items" / "g0001-i001.parquet").unlink()
    found = repair_study(run_dir)
    assert (found.damage, found.items) == (None, ("g0001-i001",))
    assert "item results of 1 are lost or damaged: g0001-i001" in found.lines()


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("DELETE FROM study_user_attributes WHERE key = 'facts'", "which models, tasks and"),
        ("DROP TABLE trial_user_attributes", "nothing can be read of its database"),
        ("UPDATE alembic_version SET version_num = 'v9'", "nothing can be read of its database"),
        ("INSERT INTO studies (study_name) VALUES ('another')", "holds other searches too"),
    ],
)
def test_what_no_search_can_go_on_with_is_refused_and_left(
    tmp_path: Path, statement: str, said: str
) -> None:
    run_dir = write_record(tmp_path / "run")
    _lose_a_trial(run_dir)
    execute(run_dir, statement)
    before = files_of(run_dir)
    result = CliRunner().invoke(app, ["repair", str(run_dir)])
    assert result.exit_code == 2, result.output
    [line] = result.stderr.strip().splitlines()
    assert said in line
    assert files_of(run_dir) == before


@pytest.mark.parametrize("content", [b"", b"no database, but a text\n" * 400])
def test_a_file_that_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    run_dir = write_record(tmp_path / "run")
    (run_dir / "study.db").write_bytes(content)
    with pytest.raises(RunError, match="nothing can be read of its database"):
        repair_study(run_dir)
    assert (run_dir / "study.db").read_bytes() == content


def test_an_outcome_is_found_again_where_nothing_tells_how_much_is_lost(tmp_path: Path) -> None:
    run_dir = write_record(tmp_path / "run")
    execute(run_dir, "DELETE FROM study_user_attributes WHERE key = 'contents'")
    execute(run_dir, "DELETE FROM trial_user_attributes WHERE trial_id = 3")
    with pytest.raises(RunError, match="how many items each generation began with"):
        repair_study(run_dir)


def test_notes_that_a_search_makes_again_may_be_lost(tmp_path: Path) -> None:
    run_dir = write_record(tmp_path / "run")
    with read_study(run_dir) as study:
        before = repr(study.trials)
    execute(run_dir, "UPDATE study_user_attributes SET value_json = '{' WHERE key = 'estimates'")
    found = repair_study(run_dir)
    assert (found.lost, found.notes) == (0, ("estimates",))
    with read_study(run_dir) as study:
        assert repr(study.trials) == before
        assert study.noted("estimates") is None


def test_an_interrupted_write_is_undone_and_its_journal_goes_with_the_damaged_file(
    tmp_path: Path,
) -> None:
    from tests.study.test_damage import cut_short

    run_dir = write_record(tmp_path / "run")
    with read_study(run_dir) as study:
        before = contents_of(study)
    cut_short(run_dir)
    assert repair_study(run_dir).whole
    journal = run_dir / "study.db-journal"
    shutil.copy(journal, tmp_path / "journal")
    content = bytearray((run_dir / "study.db").read_bytes())
    content[18:20] = b"\0\0"  # of the header: no version that SQLite reads; the journal restores it
    (run_dir / "study.db").write_bytes(content)
    with read_study(run_dir) as study:
        assert contents_of(study) == before
