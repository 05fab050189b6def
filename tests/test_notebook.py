"""The notebook among the examples runs from top to bottom, and shows what its code gives."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

import evomerge

NOTEBOOK = Path(evomerge.__file__).parents[1] / "examples" / "notebook.ipynb"


def test_the_notebook_runs_and_shows_what_it_gave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(NOTEBOOK.parent)
    names: dict[str, Any] = {}
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    shown = 0
    for cell in cells:
        if cell["cell_type"] != "code":
            continue
        body = ast.parse("".join(cell["source"])).body
        last = body.pop() if isinstance(body[-1], ast.Expr) else None
        exec(compile(ast.Module(body, []), "notebook", "exec"), names)
        if last is None:
            continue
        value = eval(compile(ast.Expression(last.value), "notebook", "eval"), names)  # type: ignore[attr-defined]
        for output in cell["outputs"]:
            if "data" in output and isinstance(value, evomerge.Gain):
                given = eval("".join(output["data"]["text/plain"]), {"Gain": evomerge.Gain})
                # Another processor may round an answer to another word.
                assert value.value == pytest.approx(given.value, abs=0.02)
                assert (value.against, value.settled) == (given.against, given.settled)
                shown += 1
    assert names["result"].finished
    assert shown == 2, "both gains"
