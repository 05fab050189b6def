"""The chat template that a recipe asks for: formats by name, the models' own, a text."""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from mergekit._data import chat_templates as published
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from evomerge.errors import RecipeError
from evomerge.vocabulary.chat_templates import CHAT_TEMPLATES, chosen_template
from tests.checkpoints import word_tokenizer
from tests.vocabulary.models import Family, make_family, merge_by_mergekit, merge_here

SYSTEM = {"role": "system", "content": " Be brief.\n"}
USER = {"role": "user", "content": " two plus two? "}
ANSWER = {"role": "assistant", "content": " four\n"}
CONVERSATIONS = (
    [USER],
    [SYSTEM, USER],
    [USER, ANSWER],
    [USER, ANSWER, USER],
    [SYSTEM, USER, ANSWER, USER, ANSWER],
)


def rendered(template: str, conversation: list[dict[str, str]], *, prompt: bool) -> str:
    tokenizer = word_tokenizer()
    tokenizer.chat_template = template
    text = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=prompt)
    assert isinstance(text, str)
    return text


def none_loaded() -> Iterable[PreTrainedTokenizerFast]:
    raise AssertionError("no tokenizer is needed")


@pytest.mark.parametrize("prompt", [False, True])
@pytest.mark.parametrize("name", CHAT_TEMPLATES)
def test_a_format_reads_as_the_published_one(name: str, prompt: bool) -> None:
    file = importlib.resources.files(published).joinpath(f"{name}.jinja")
    template = chosen_template(name, none_loaded)
    assert template is not None
    for conversation in CONVERSATIONS:
        expected = rendered(file.read_text(), conversation, prompt=prompt)
        assert rendered(template, conversation, prompt=prompt) == expected


def test_every_published_format_is_known() -> None:
    folder = importlib.resources.files(published)
    names = {Path(file.name).stem for file in folder.iterdir() if file.name.endswith(".jinja")}
    assert names == set(CHAT_TEMPLATES)


def test_turns_out_of_order_are_refused_by_the_format_that_forbids_them() -> None:
    with pytest.raises(Exception, match="must alternate"):
        rendered(CHAT_TEMPLATES["mistral"], [ANSWER, USER], prompt=False)


def test_a_text_is_taken_as_it_is() -> None:
    text = "{% for message in messages %}{{ message.content }}{% endfor %}"
    assert chosen_template(text, none_loaded) == text


@pytest.mark.parametrize("wanted", ["chatnl", "{{ messages }}", "no braces in this text at all"])
def test_what_is_no_template_is_refused(wanted: str) -> None:
    with pytest.raises(RecipeError, match="no such template; write auto, one of alpaca, chatml"):
        chosen_template(wanted, none_loaded)


def test_auto_is_what_most_of_the_models_have() -> None:
    tokenizers = [word_tokenizer() for _ in range(5)]
    for tokenizer, text in zip(tokenizers[1:], ("{{ a }}", "{{ b }}", " {{ b }}\n"), strict=False):
        tokenizer.chat_template = text
    tokenizers[4].chat_template = {"tool_use": "{{ a }}"}
    assert chosen_template("auto", lambda: tokenizers) == "{{ b }}"
    assert chosen_template("auto", lambda: tokenizers[:1]) is None


@pytest.mark.parametrize("wanted", ["chatml", "auto"])
@pytest.mark.parametrize("tokenizer", [None, {"source": "union"}])
def test_the_tokenizer_that_is_written_has_it(
    tmp_path: Path, wanted: str, tokenizer: dict[str, Any] | None
) -> None:
    family = make_family(tmp_path / "models")
    for folder in (family.first, family.second):
        (folder / "chat_template.jinja").write_text("{{ messages[0].content }} of the experts")
    changes: dict[str, Any] = {} if tokenizer is None else {"tokenizer": tokenizer}
    document = _document(family, tokenizer is None, chat_template=wanted, **changes)
    ours = AutoTokenizer.from_pretrained(merge_here(document, tmp_path / "ours"))
    theirs = AutoTokenizer.from_pretrained(merge_by_mergekit(document, tmp_path / "theirs"))
    said = [each.apply_chat_template([USER], tokenize=False) for each in (ours, theirs)]
    assert said[0] == said[1]
    assert ("of the experts" in said[0]) == (wanted == "auto")


def _document(family: Family, alike: bool, **changes: Any) -> dict[str, Any]:
    """The experts over the base, or one of them over itself where nothing lies otherwise."""
    document = family.document(**changes)
    if alike:
        document["base_model"] = str(family.first)
        document["models"] = document["models"][:1]
    return document


def test_a_text_that_jinja_cannot_read_is_refused() -> None:
    broken = "{% for message in messages %}{{ message.content }}"
    with pytest.raises(RecipeError, match="chat_template: not a Jinja text"):
        chosen_template(broken, none_loaded)
