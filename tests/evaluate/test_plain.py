"""The reference, a text at a time: transformers' own numbers and answers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import GenerationConfig

from evomerge.evaluate.engines.base import NonFiniteLogits, Stopping
from evomerge.evaluate.engines.transformers.decoding import GreedyChoice
from evomerge.evaluate.engines.transformers.plain import plain_answer, plain_logits
from tests.architectures import load_whole, save_architecture
from tests.checkpoints import word_tokenizer
from tests.evaluate.test_engine import generated, prompt
from tests.evaluate.test_live_model import words

CONTEXT = 64


def choice(**settings: object) -> GreedyChoice:
    return GreedyChoice(
        generation_config=GenerationConfig(**settings),
        stopping=Stopping(word_tokenizer(), end_tokens=[2]),
        vocabulary=40,
    )


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mamba", "llava"])
def test_logits_are_those_of_one_pass_over_the_text(kind: str, tmp_path: Path) -> None:
    save_architecture(tmp_path, kind)
    model = load_whole(tmp_path, kind).eval()
    ids = torch.tensor(words(7, seed=0))
    with torch.no_grad():
        expected = model(ids[None]).logits[0]
    torch.testing.assert_close(plain_logits(model, ids), expected, atol=1e-5, rtol=0.0)


@pytest.mark.parametrize("penalty", [1.0, 1.7])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "mamba"])
def test_answers_are_those_that_transformers_generates(
    kind: str, penalty: float, tmp_path: Path
) -> None:
    save_architecture(tmp_path, kind)
    model = load_whole(tmp_path, kind).eval()
    for count in (4, 9):
        tokens = words(count, seed=count)
        found = plain_answer(
            model,
            prompt(tokens, limit_tokens=7),
            choice(repetition_penalty=penalty),
            context_tokens=CONTEXT,
        )
        assert found == generated(model, tokens, max_new_tokens=7, repetition_penalty=penalty)


def test_an_answer_ends_with_its_stop_text_whatever_the_checkpoint_says(tmp_path: Path) -> None:
    save_architecture(tmp_path, "llama")
    model = load_whole(tmp_path, "llama").eval()
    whole = plain_answer(
        model, prompt(words(6, seed=1), limit_tokens=8), choice(), context_tokens=CONTEXT
    )
    model.generation_config.eos_token_id = whole[0]
    text = word_tokenizer().decode([whole[2]])
    ended = plain_answer(
        model,
        prompt(words(6, seed=1), stop=(text,), limit_tokens=8),
        choice(),
        context_tokens=CONTEXT,
    )
    assert ended == whole[: whole.index(whole[2]) + 1]
    assert model.generation_config.eos_token_id == whole[0]


def test_logits_that_are_not_finite_are_no_answer(tmp_path: Path) -> None:
    save_architecture(tmp_path, "llama")
    model = load_whole(tmp_path, "llama").eval()
    torch.nn.init.constant_(model.lm_head.weight, float("nan"))
    with pytest.raises(NonFiniteLogits):
        plain_answer(model, prompt(words(5, seed=0)), choice(), context_tokens=CONTEXT)
