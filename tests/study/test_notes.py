"""Names of a record's notes: they are file format, and are written in one place."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import get_args

import evomerge
from evomerge.study import notes

PACKAGE = Path(evomerge.__file__).parent


def test_notes_stay_under_the_names_that_records_have_them_under() -> None:
    named = {value for name, value in vars(notes).items() if name.isupper()}
    assert named == set(get_args(notes.NoteName))
    assert named == {
        "algorithms",
        "estimates",
        "facts",
        "items of generations",
        "passed_over",
        "searches",
        "selection",
        "self_checks",
        "stages",
    }


def test_no_name_of_a_note_is_written_where_it_is_kept_or_read() -> None:
    spelled = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("note", "noted")
        and isinstance(node.args[0], ast.Constant)
    ]
    assert spelled == []
