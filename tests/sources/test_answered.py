"""Answers of transformers that are kept on disk: the same as those that it gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evomerge.errors import RecipeError
from evomerge.merge import check_loadable
from evomerge.merge.settings import forward
from evomerge.merge.settings.forward import forward_settings
from evomerge.sources import answered, ask, open_source, unread
from tests.checkpoints import save_tiny_llama


class Forgetful(dict[str, str]):
    """Keeps nothing, as if each question came from another process."""

    def __setitem__(self, question: str, answer: str) -> None:
        pass


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the answers, in processes that seem not to have imported transformers."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(answered, "_is_open", lambda: True)
    monkeypatch.setattr(answered, "_remembered", Forgetful())
    return tmp_path / "cache" / "evomerge" / "transformers"


def refuse(*given: object, **more: object) -> None:
    raise AssertionError("transformers was asked")


def test_a_model_is_opened_by_what_was_found_before(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_tiny_llama(tmp_path / "m", seed=0)
    first = open_source(str(folder), where="test")
    monkeypatch.setattr(unread, "meta_model", refuse)
    again = open_source(str(folder), where="test")
    assert again.structure == first.structure
    assert again.structure.parameters == first.structure.parameters
    with pytest.raises(AssertionError):  # another structure is another question
        open_source(str(save_tiny_llama(tmp_path / "n", seed=0, layers=3)), where="test")


def test_a_process_asks_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = open_source(str(save_tiny_llama(tmp_path / "m", seed=0)), where="test").config
    monkeypatch.setattr(answered, "_remembered", {})
    found = forward_settings(config)
    kept = dict(found)
    found["rope_theta"] = "changed by whoever asked"
    monkeypatch.setattr(forward, "read_config", refuse)
    assert forward_settings(config) == kept
    with pytest.raises(AssertionError):
        forward_settings({**config, "rms_norm_eps": 0.5})
    monkeypatch.setattr(answered, "_MOST_REMEMBERED", 1)
    ask("kind", "given").keep([1])
    with pytest.raises(AssertionError):  # memory does not grow for ever
        forward_settings(config)


def test_what_depends_on_the_weights_is_not_kept(kept: Path, tmp_path: Path) -> None:
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "tie_word_embeddings": True,
        **{"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "vocab_size": 9},
        **{"num_attention_heads": 1, "num_key_value_heads": 1},
    }
    shapes = {"model.embed_tokens.weight": (9, 8), "lm_head.weight": (9, 8)}
    for same in (True, False):
        found = unread.find_unread(config, shapes, lambda a, b, same=same: same)
        assert found.repeated == ({"lm_head.weight"} if same else set())


def test_a_refusal_is_found_each_time(kept: Path, tmp_path: Path) -> None:
    source = open_source(str(save_tiny_llama(tmp_path / "m", seed=0)), where="test")
    shapes = dict(source.structure.shapes)
    kept_before = len(list(kept.iterdir()))
    del shapes["model.norm.weight"]
    for _ in range(2):
        with pytest.raises(RecipeError, match="would not load completely"):
            check_loadable(source.config, shapes)
    assert len(list(kept.iterdir())) == kept_before


def test_a_damaged_answer_is_asked_for_again(kept: Path, tmp_path: Path) -> None:
    config = open_source(str(save_tiny_llama(tmp_path / "m", seed=0)), where="test").config
    settings = forward_settings(config)
    files = list(kept.iterdir())
    changed = '{"answer": {"rope_theta": 1}, "sha256": "of another"}'
    for text in ("", "{", "[]", '{"other": 1}', "null", changed):
        for file in files:
            file.write_text(text, encoding="utf-8")
        assert forward_settings(config) == settings
        assert json.loads((ask("forward", config).file or kept).read_text())["answer"] == settings


def test_an_answer_that_json_would_change_is_not_kept(kept: Path) -> None:
    for answer in ((1, 2), {1: "a"}, float("nan"), object()):
        ask("kind", "given").keep(answer)
        assert ask("kind", "given").answer is None
    ask("kind", "given").keep([1, 2])
    assert ask("kind", "given").answer == [1, 2]


def test_other_packages_and_other_order_are_other_questions(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ask("kind", {"a": 1, "b": 2}).file
    assert ask("kind", {"a": 1, "b": 2}).file == first
    assert ask("kind", {"b": 2, "a": 1}).file != first
    monkeypatch.setattr(answered, "_installed", lambda: ["newer"])
    assert ask("kind", {"a": 1, "b": 2}).file != first


def test_a_process_that_has_transformers_asks_it(tmp_path: Path) -> None:
    assert ask("kind", "given").file is None


def test_a_folder_that_cannot_be_written_is_no_error(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    ask("kind", "given").keep([1])
    assert ask("kind", "given").answer is None
