"""Two records are told apart by one digit anywhere, and not by times or places."""

from __future__ import annotations

import hashlib
import json
import math
import runpy
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import evomerge

SCRIPT = Path(evomerge.__file__).parents[1] / "scripts" / "compare_records.py"
RECORDS = Path(__file__).parent / "fixtures" / "records_0_1"

Compare = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def main() -> Callable[[], int]:
    found: Callable[[], int] = runpy.run_path(str(SCRIPT))["main"]
    return found


@pytest.fixture
def compare(
    main: Callable[[], int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Compare:
    """Calls the script: its exit code, and what it printed."""

    def call(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", [str(SCRIPT), *map(str, arguments)])
        code = main()
        said = capsys.readouterr()
        return code, said.out + said.err

    return call


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """The same record in two places."""
    for name in ("before", "after"):
        shutil.unpack_archive(RECORDS / "weights.tar.xz", tmp_path / name, filter="data")
    return tmp_path / "before" / "weights", tmp_path / "after" / "weights"


def change_genome(run_dir: Path) -> None:
    def change(said: dict[str, Any]) -> None:
        said["genome"][1] = math.nextafter(said["genome"][1], 1.0)

    change_attribute(run_dir, change, of='%"generation": 1, "place": 2,%')


def change_recipe(run_dir: Path) -> None:
    """Of the winner, with the digest that goes with it."""
    with sqlite3.connect(run_dir / "study.db") as database:
        query = "SELECT value_json FROM study_user_attributes WHERE key = 'selection'"
        value = json.loads(database.execute(query).fetchone()[0])["value"]
        value["recipe"] = value["recipe"].replace("0.4263424305020679", "0.4263424305020678")
        digest = hashlib.sha256(json.dumps(value).encode()).hexdigest()
        database.execute(
            "UPDATE study_user_attributes SET value_json = ? WHERE key = 'selection'",
            (json.dumps({"sha256": digest, "value": value}),),
        )


def change_item(run_dir: Path) -> None:
    path = run_dir / "items" / "g0001-i002.parquet"
    table = pq.read_table(path)
    values = table["outcome"].to_pylist()
    values[3] = 1.0 - values[3]
    place = table.schema.get_field_index("outcome")
    pq.write_table(table.set_column(place, "outcome", pa.array(values, pa.float64())), path)


def change_event(run_dir: Path) -> None:
    path = run_dir / "events.jsonl"
    path.write_text(path.read_text().replace('"generation": 1,', '"generation": 2,'))


def lose_items(run_dir: Path) -> None:
    (run_dir / "items" / "g0001-i002.parquet").unlink()


def change_attribute(run_dir: Path, change: Callable[[dict[str, Any]], None], *, of: str) -> None:
    """Change what a trial says of its candidate; of: like what the text is."""
    with sqlite3.connect(run_dir / "study.db") as database:
        place = "key = 'candidate' AND value_json LIKE ?"
        query = f"SELECT value_json FROM trial_user_attributes WHERE {place}"
        [(text,)] = database.execute(query, (of,)).fetchall()
        said = json.loads(text)
        change(said)
        update = f"UPDATE trial_user_attributes SET value_json = ? WHERE {place}"
        database.execute(update, (json.dumps(said), of))


def test_a_record_is_equal_to_itself_elsewhere_and_at_another_time(
    compare: Compare, pair: tuple[Path, Path]
) -> None:
    before, after = pair
    events = after / "events.jsonl"
    events.write_text(events.read_text().replace('"at": "2', '"at": "3').replace("runs/", "old/"))
    code, said = compare(before, after)
    assert code == 0, said
    lines = {line[:28].strip(): line.split() for line in said.splitlines()}
    assert lines["trials of weights"][-5::2] == ["15", "15", "equal"]
    assert lines["item files"][-5::2] == ["32", "32", "equal"]
    assert said.endswith("EQUAL\n")


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (change_genome, "trials of weights: trial 10.attributes.candidate.genome[1]: 0."),
        (change_recipe, "winner: winner.recipe, line 11: '    - value: 0.4263424305020679"),
        (change_item, "item files: g0001-i002.parquet.outcome[3]: 0.0 -> 1.0"),
        (change_event, ".generation: 1 -> 2"),
        (lose_items, "item files: g0001-i002.parquet.candidate, length: 48 -> nothing"),
    ],
    ids=["genome", "recipe", "item", "event", "lost"],
)
def test_one_digit_is_a_difference_that_is_named(
    compare: Compare, pair: tuple[Path, Path], change: Callable[[Path], None], name: str
) -> None:
    before, after = pair
    change(after)
    code, said = compare(before, after, "--most", 200)
    assert code == 1
    assert name in said, said
    assert "DIFFERENT in " in said


def test_many_differences_are_counted_and_some_named(
    compare: Compare, pair: tuple[Path, Path]
) -> None:
    before, after = pair
    lose_items(after)
    _, said = compare(before, after, "--most", 2)
    assert said.count("item files: g0001-i002") == 2
    assert "item files: and " in said


def test_where_nothing_is_recorded_nothing_is_equal(
    compare: Compare, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    before, after = pair
    (after / "study.db").unlink()
    assert compare(before, after)[0] == 2
    assert compare(before, tmp_path)[0] == 2
    with pytest.raises(SystemExit) as ended:
        compare(before, before)
    assert ended.value.code == 2
