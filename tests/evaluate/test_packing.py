"""Texts read as a tree: the answers of plain transformers, fewer tokens, and only where exact."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from evomerge.evaluate.engines.base import Continuation, Prompt
from evomerge.evaluate.engines.transformers import limits, tree_passes
from evomerge.evaluate.engines.transformers.engine import TransformersEngine
from evomerge.evaluate.engines.transformers.logit_selection import LogitSelection
from evomerge.evaluate.engines.transformers.tree_passes import PlacedPass
from tests.architectures import load_whole, save_architecture
from tests.checkpoints import load_tensors, word_tokenizer
from tests.evaluate.test_engine import continuation, generated, prompt
from tests.evaluate.test_live_model import words

PACKED = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3",
    "phi3",
    "olmo2",
    "gpt2",
    "gpt_neox",
    "mixtral",
    "qwen3_moe",
    "llava",
    "qwen2_vl",
)

EXAMPLES = words(20, seed=100)
"""Shared by most requests, and longer than what makes a trunk."""


def likely_requests() -> list[Continuation]:
    """Choices after contexts that share examples, and requests that share nothing."""
    asked = []
    for item in range(6):
        context = [*EXAMPLES, *words(3 + item % 4, seed=item)]
        for choice in range(4):
            end = words(1 + (item + choice) % 3, seed=50 + choice)
            asked.append(continuation([*context, *end], len(end)))
        asked.append(continuation(words(4 + item, seed=200 + item), 2))
    return [*asked, continuation(EXAMPLES, 3)]


def prompts_to_answer() -> list[Prompt]:
    """Prompts that share examples, some twice, with limits of their own, and others."""
    shared = [[*EXAMPLES, *words(2 + item % 5, seed=item)] for item in range(9)]
    alone = [words(3 + 2 * item, seed=300 + item) for item in range(4)]
    texts = [*shared, *alone, shared[0], EXAMPLES]
    return [prompt(text, limit_tokens=1 + 3 * (i % 4)) for i, text in enumerate(texts)]


def engine_of(folder: Path, **options: object) -> TransformersEngine:
    options = {"dtype": "float32", "tokenizer": word_tokenizer(), **options}
    engine = TransformersEngine(folder, **options)  # type: ignore[arg-type]
    engine.load(load_tensors(folder).items())
    return engine


def read_tokens(engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each forward pass from now on reads."""
    counts: list[int] = []
    forward = engine.model.forward
    monkeypatch.setattr(
        engine.model,
        "forward",
        lambda input_ids, **options: (
            counts.append(input_ids.numel()) or forward(input_ids, **options)
        ),
    )
    return counts


@pytest.mark.parametrize("kind", PACKED)
def test_packed_answers_are_those_of_plain_transformers(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_architecture(tmp_path, kind)
    plain = load_whole(folder, kind).eval()
    engine = engine_of(folder)
    counts = read_tokens(engine, monkeypatch)
    asked = likely_requests()
    for request, (value, greedy) in zip(asked, engine.loglikelihood(asked), strict=True):
        ids = torch.from_numpy(request.tokens)
        with torch.no_grad():
            rows = plain(ids[None, :-1]).logits[0].double().log_softmax(-1)[-request.scored :]
        targets = ids[-request.scored :]
        # float32 sums over other numbers of keys.
        assert value == pytest.approx(float(rows.gather(1, targets[:, None]).sum()), abs=1e-4)
        assert greedy == bool((rows.argmax(-1) == targets).all())
    # One by one these are 700 tokens, with each shared beginning once they are under 150.
    assert sum(counts) < 160 < sum(len(request.tokens) - 1 for request in asked) / 4
    prompts = prompts_to_answer()
    for request, text in zip(prompts, engine.generate(prompts), strict=True):
        expected = generated(plain, request.tokens.tolist(), max_new_tokens=request.limit_tokens)
        assert text == word_tokenizer().decode(expected, skip_special_tokens=True)


@pytest.mark.parametrize("mistake", ["mask", "places"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["llama", "gemma2", "gpt2", "gpt_neox", "qwen2_vl"])
def test_a_model_that_reads_a_tree_wrongly_is_found_out(
    kind: str, dtype: str, mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that ignores the mask's gaps, or takes places from the row, would read it."""
    folder = save_architecture(tmp_path, kind)
    assert engine_of(folder, dtype=dtype)._longest_packed != 0
    run_pass = tree_passes.run_pass
    reads_wrongly: list[PlacedPass] = []

    def wrong(forward: object, placed: PlacedPass, *rest: object, **options: object) -> object:
        rows, columns = placed.ids.shape
        places = torch.arange(columns) + placed.tree_pass.past
        changed = {
            "mask": {"ends": placed.ends if placed.ends is None else placed.ends * 0 + columns},
            "places": {"depths": places.expand(rows, -1)},
        }[mistake]
        reads_wrongly.append(placed)
        return run_pass(forward, dataclasses.replace(placed, **changed), *rest, **options)

    monkeypatch.setattr(limits, "run_pass", wrong)
    assert engine_of(folder, dtype=dtype)._longest_packed == 0
    assert len(reads_wrongly) > 1  # no error of its own made it end


def rows_read(module: nn.Module) -> list[int]:
    """How many tokens each call of a module from now on is given."""
    counts: list[int] = []
    module.register_forward_hook(
        lambda _, given, out: counts.append(given[0].numel() // given[0].shape[-1])
    )
    return counts


@pytest.mark.parametrize("kind", ["llama", "gemma2", "gpt2", "qwen3_moe", "gpt_neox", "llava"])
def test_the_head_and_the_last_mlp_read_only_what_is_wanted(kind: str, tmp_path: Path) -> None:
    engine = engine_of(save_architecture(tmp_path, kind))
    layers = next(m for m in engine.model.get_decoder().children() if isinstance(m, nn.ModuleList))
    head, first, last = map(
        rows_read, (engine.model.get_output_embeddings(), layers[0].mlp, layers[-1].mlp)
    )
    asked = [continuation([*words(12, seed=i), *words(2, seed=90 + i)], 2) for i in range(5)]
    engine.loglikelihood(asked)
    assert sum(head) == 2 * len(asked)
    assert sum(last) == 2 * len(asked) < sum(first)


@pytest.mark.parametrize("part", ["_after_mlp", "_before_head"])
def test_a_part_that_is_wrong_without_its_other_cells_stays_whole(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is found out in the trial costs speed, never an answer."""
    folder = save_architecture(tmp_path, "llama")
    asked = likely_requests()
    expected = [value for value, _ in engine_of(folder, batch_size=1).loglikelihood(asked)]
    right = getattr(LogitSelection, part)

    def wrong(self: LogitSelection, *given: object) -> object:
        out = right(self, *given)
        if isinstance(out, tuple):
            return (torch.flip(out[0], dims=[1]), *out[1:])
        return None if out is None else torch.zeros_like(out)

    monkeypatch.setattr(LogitSelection, part, wrong)
    engine = engine_of(folder)
    assert engine._longest_packed is None
    assert engine._wanted is not None
    assert not engine._wanted.keep_last_layer()
    assert engine._wanted.spares_head == (part == "_after_mlp")
    likely = [value for value, _ in engine.loglikelihood(asked)]
    np.testing.assert_allclose(likely, expected, atol=1e-4)


def test_a_state_space_model_is_read_in_the_plain_way(tmp_path: Path) -> None:
    folder = save_architecture(tmp_path, "mamba")
    engine = engine_of(folder)
    assert engine._longest_packed == 0
    plain = load_whole(folder, "mamba").eval()
    asked = [prompt(words(4 + i, seed=i)) for i in range(3)]
    for request, text in zip(asked, engine.generate(asked), strict=True):
        expected = generated(plain, request.tokens.tolist(), max_new_tokens=6)
        assert text == word_tokenizer().decode(expected, skip_special_tokens=True)


def test_past_a_sliding_window_texts_are_read_in_the_plain_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_architecture(tmp_path, "mistral")
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "sliding_window": 34}))
    engine = engine_of(folder)
    counts = read_tokens(engine, monkeypatch)
    short = [continuation([*words(5, seed=0), *words(2, seed=i)], 2) for i in range(3)]
    engine.loglikelihood(short)
    assert counts == [8]  # five shared tokens, and one of each continuation
    counts.clear()
    engine.loglikelihood([continuation([*words(38, seed=0), *words(2, seed=i)], 2) for i in (1, 2)])
    assert counts == [2 * 39]


def test_a_number_of_rows_asks_for_the_plain_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a job can have the batches that stock lm-eval makes."""
    engine = engine_of(save_architecture(tmp_path, "llama"), batch_size=1)
    counts = read_tokens(engine, monkeypatch)
    asked = likely_requests()
    engine.loglikelihood(asked)
    read = {request.tokens[:-1].tobytes(): len(request.tokens) - 1 for request in asked}
    assert counts == sorted(read.values(), reverse=True)


def test_few_rows_at_a_time_give_the_same_answers_and_repeat(tmp_path: Path) -> None:
    """Rows end, move and make room for other prompts in another order."""
    engine = engine_of(save_architecture(tmp_path, "qwen3"))
    asked = prompts_to_answer()
    first = engine.generate(asked)
    assert engine.generate(asked) == first
    assert engine.generate(asked[::-1]) == first[::-1]
    engine._tokens = (64, 70)  # two rows
    assert engine.generate(asked) == first


def test_more_choices_than_a_pass_holds_share_their_context(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first token of a continuation is then foretold by the end of a trunk."""
    engine = engine_of(save_architecture(tmp_path, "llama"))
    one_by_one = engine_of(tmp_path, batch_size=1)
    asked = [continuation([*EXAMPLES, first, *words(2, seed=first)], 3) for first in range(4, 40)]
    engine._tokens = (48, 1024)
    counts = read_tokens(engine, monkeypatch)
    likely = np.array([value for value, _ in engine.loglikelihood(asked)])
    np.testing.assert_allclose(
        likely, [value for value, _ in one_by_one.loglikelihood(asked)], atol=1e-4
    )
    assert len(counts) > 2
    assert sum(counts) < len(EXAMPLES) + 2 * len(asked) + 8
