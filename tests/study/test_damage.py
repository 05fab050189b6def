"""Damage to a record is noticed where it is read, or changes nothing."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from evomerge.cli import app
from evomerge.errors import RunError
from evomerge.evaluate.candidate import CandidateKey, Cost
from evomerge.study import digest_items, read_study, resume_study
from evomerge.study.items import ItemFiles
from tests.study.records import (
    SCORED,
    candidate,
    contents_of,
    execute,
    write_record,
)

KEY = CandidateKey(1, 0)


def flipped(path: Path, *, step: int) -> list[bytes]:
    """The file with one bit changed, in every place after another."""
    content, bits = path.read_bytes(), random.Random(5)
    made = []
    for place in range(0, len(content), step):
        changed = bytearray(content)
        changed[place] ^= 1 << bits.randrange(8)
        made.append(bytes(changed))
    return made


def test_item_results_with_a_flipped_bit_are_lost_or_what_they_were(tmp_path: Path) -> None:
    files = ItemFiles(tmp_path)
    files.write(KEY, SCORED.tasks)
    digest = digest_items(SCORED.tasks)
    [path] = (tmp_path / "items").iterdir()
    found = []
    for content in flipped(path, step=2):
        path.write_bytes(content)
        found.append(files.find(KEY, digest))
    assert {None if one is None else repr(one) for one in found} == {None, repr(SCORED.tasks)}


def test_blocks_with_a_flipped_bit_are_lost_or_what_they_were(tmp_path: Path) -> None:
    files, scored = ItemFiles(tmp_path), replace(SCORED, cost=Cost(merge_s=0.1 + 0.2, items=3))
    files.write_block(candidate(0), 0, scored)
    [path] = (tmp_path / "items").iterdir()
    found = []
    for content in flipped(path, step=2):
        path.write_bytes(content)
        found.append(files.read_block(candidate(0), 0))
    assert {None if one is None else repr(one) for one in found} == {None, repr(scored)}


def test_item_results_of_another_candidate_are_not_taken_for_its_own(tmp_path: Path) -> None:
    run_dir = write_record(tmp_path / "run")
    other = replace(SCORED.tasks["sums_choice"], metrics={"acc": (1.0, 1.0, 1.0)})
    ItemFiles(run_dir).write(KEY, {"sums_choice": other})
    with (
        read_study(run_dir) as study,
        pytest.raises(RunError, match=r"damaged; `evomerge resume .*` scores them again"),
    ):
        study.items_of(KEY)


@pytest.mark.parametrize("opened", [read_study, resume_study])
def test_a_database_with_a_flipped_bit_is_refused_or_says_what_it_said(
    tmp_path: Path, opened: Callable
) -> None:
    run_dir = write_record(tmp_path / "run")
    with read_study(run_dir) as study:
        expected = contents_of(study)
    path = run_dir / "study.db"
    damaged = [content for content in flipped(path, step=211) if content.strip(b"\0")]
    refused = 0
    for content in damaged[::4]:
        path.write_bytes(content)
        try:
            with opened(run_dir) as study:
                assert contents_of(study) == expected
        except RunError:
            refused += 1
    assert refused


DAMAGE: dict[str, Callable[[Path], object]] = {
    "text": lambda run: (run / "study.db").write_text("no database, but a text\n" * 99),
    "empty": lambda run: (run / "study.db").write_bytes(b""),
    "cut": lambda run: (run / "study.db").write_bytes((run / "study.db").read_bytes()[:40_000]),
    "another schema": lambda run: execute(run, "UPDATE alembic_version SET version_num = 'v9'"),
    "no version": lambda run: execute(run, "DELETE FROM alembic_version"),
    "no table": lambda run: execute(run, "DROP TABLE trial_user_attributes"),
    "no study": lambda run: execute(run, "DELETE FROM studies"),
    "no finalists": lambda run: execute(run, "DELETE FROM studies WHERE study_name LIKE '%fin%'"),
    "a trial less": lambda run: execute(run, "DELETE FROM trials WHERE number = 1"),
    "the last less": lambda run: execute(run, "DELETE FROM trials WHERE number = 2"),
    "no attributes": lambda run: execute(run, "DELETE FROM trial_user_attributes"),
    "no digests": lambda run: execute(run, "DELETE FROM trial_user_attributes WHERE key='sha256'"),
    "no values": lambda run: execute(run, "DELETE FROM trial_values"),
    "another value": lambda run: execute(run, "UPDATE trial_values SET value = 0.75"),
    "another state": lambda run: execute(run, "UPDATE trials SET state = 'FAIL'"),
    "broken JSON": lambda run: execute(run, "UPDATE trial_user_attributes SET value_json = '{'"),
    "other JSON": lambda run: execute(run, "UPDATE trial_user_attributes SET value_json = '[]'"),
    "no note": lambda run: execute(run, "DELETE FROM study_user_attributes WHERE key = 'facts'"),
    "no contents": lambda run: execute(
        run, "DELETE FROM study_user_attributes WHERE key = 'contents'"
    ),
    "another note": lambda run: execute(
        run,
        "UPDATE study_user_attributes SET value_json = replace(value_json, 'found', 'bound')",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_database_is_called_damaged(tmp_path: Path, kind: str) -> None:
    run_dir = write_record(tmp_path / "run")
    DAMAGE[kind](run_dir)
    damaged = (run_dir / "study.db").read_bytes()
    for command in ("status", "resume"):
        result = CliRunner().invoke(app, [command, str(run_dir)])
        assert result.exit_code == 2, result.output
        [line] = result.stderr.strip().splitlines()
        assert "is damaged" in line
        assert "put back a copy" in line
        assert "make room" not in line
        assert (run_dir / "study.db").read_bytes() == damaged


def test_parameters_that_are_not_what_was_recorded_are_refused(tmp_path: Path) -> None:
    run_dir = write_record(tmp_path / "run")
    execute(run_dir, "UPDATE trial_params SET param_value = 1.0")
    with (
        read_study(run_dir) as study,
        pytest.raises(RunError, match="is damaged"),
    ):
        str(study.trial(KEY).parameters)


def without_digests(run_dir: Path) -> None:
    """Take away all that tells damage."""
    plain = "json_extract(value_json, '$.value')"
    execute(
        run_dir,
        "DELETE FROM trial_user_attributes WHERE key = 'sha256'",
        "DELETE FROM study_user_attributes WHERE key = 'contents'",
        f"UPDATE study_user_attributes SET value_json = {plain}",
    )


def test_a_record_without_digests_is_damaged(tmp_path: Path) -> None:
    run_dir = write_record(tmp_path / "run")
    without_digests(run_dir)
    for begin in (read_study, resume_study):
        with pytest.raises(RunError, match="the list of its contents is missing"):
            begin(run_dir)


def test_a_trial_without_its_digests_is_damaged(tmp_path: Path) -> None:
    run_dir = write_record(tmp_path / "run")
    newest = "trial_id = (SELECT max(trial_id) FROM trials)"
    execute(run_dir, f"DELETE FROM trial_user_attributes WHERE key = 'sha256' AND {newest}")
    with pytest.raises(RunError, match=r"the digests of trial \d+ are missing"):
        read_study(run_dir)


def test_a_note_that_is_nested_without_end_is_damage(tmp_path: Path) -> None:
    run_dir = write_record(tmp_path / "run")
    deep = f"value_json = '{'[' * 200_000}' WHERE key = 'contents'"
    execute(run_dir, f"UPDATE study_user_attributes SET {deep}")
    with pytest.raises(RunError, match="is damaged"):
        read_study(run_dir)


def test_a_lost_database_is_said_and_none_is_made(tmp_path: Path) -> None:
    run_dir = write_record(tmp_path / "run")
    (run_dir / "study.db").unlink()
    for command in ("status", "resume", "report"):
        result = CliRunner().invoke(app, [command, str(run_dir)])
        assert result.exit_code == 2, result.output
        [line] = result.stderr.strip().splitlines()
        assert "study.db: missing" in line
        assert not (run_dir / "study.db").exists()


def test_a_write_that_was_cut_short_is_undone_on_a_copy(tmp_path: Path) -> None:
    run_dir = write_record(tmp_path / "run")
    with read_study(run_dir) as study:
        expected = contents_of(study)
    cut = cut_short(run_dir)
    with read_study(run_dir) as study:
        assert contents_of(study) == expected
    assert {path.name: path.read_bytes() for path in run_dir.glob("study.db*")} == cut
    with resume_study(run_dir) as study:
        assert contents_of(study) == expected


def cut_short(run_dir: Path) -> dict[str, bytes]:
    """Leave the database in the middle of a large write, as a kill would; its files."""
    database = sqlite3.connect(run_dir / "study.db")
    database.execute("PRAGMA cache_size = 1")
    database.execute("BEGIN")
    for _ in range(5):
        database.execute("INSERT INTO studies (study_name) VALUES (hex(randomblob(2000)))")
        database.execute("UPDATE trial_user_attributes SET value_json = hex(randomblob(9000))")
    shutil.copytree(run_dir, run_dir.parent / "copy")
    database.rollback()
    database.close()
    for path in run_dir.glob("study.db*"):
        path.unlink()
    for path in (run_dir.parent / "copy").glob("study.db*"):
        shutil.copy(path, run_dir)
    files = {path.name: path.read_bytes() for path in run_dir.glob("study.db*")}
    assert "study.db-journal" in files
    return files
