"""A pinned job means the same tomorrow and in another folder, and its words stay words."""

from __future__ import annotations

from pathlib import Path

import pytest

from evomerge.job import JobSpec
from evomerge.workers.preparation.preparation import pin
from tests.checkpoints import save_tiny_llama
from tests.search.jobs import make_job


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("base", "union", "auto")):
        save_tiny_llama(path / name, seed=seed, layers=2)
    return path


def job_here(folder: Path, *, tokenizer: str) -> JobSpec:
    models = {"base": "base", "sources": ["union", "auto"], "tokenizer": tokenizer}
    return make_job(folder, models=models)


@pytest.mark.parametrize("word", ["base", "union"])
def test_a_word_for_the_tokenizer_is_no_folder_of_that_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    monkeypatch.chdir(folder)
    pinned = pin(job_here(folder, tokenizer=word))
    assert pinned.models.tokenizer == word
    assert pinned.models.base == str(folder / "base")
    assert pinned.models.sources == (str(folder / "union"), str(folder / "auto"))
    assert pin(pinned) == pinned


def test_a_source_for_the_tokenizer_is_named_as_the_source_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    pinned = pin(job_here(folder, tokenizer="auto"))
    assert pinned.models.tokenizer == str(folder / "auto")
