"""What the tests of sources share: a checkpoint to change, and the line a user reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evomerge.errors import SourceError
from evomerge.sources import Source, open_source
from tests.checkpoints import save_tiny_llama


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_tiny_llama(tmp_path / "saved", seed=0)


def refused(folder: Path | str, *, base: Source | None = None) -> str:
    """The one line a user reads."""
    with pytest.raises(SourceError) as caught:
        open_source(str(folder), where="models.base", base=base)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("models.base: ")
    return message


def change_config(folder: Path, **changes: object) -> None:
    """Set keys of config.json, or remove those given as None."""
    change_json(folder / "config.json", **changes)


def change_json(file: Path, **changes: object) -> None:
    document = {**json.loads(file.read_text(encoding="utf-8")), **changes}
    kept = {key: value for key, value in document.items() if value is not None}
    file.write_text(json.dumps(kept), encoding="utf-8")
