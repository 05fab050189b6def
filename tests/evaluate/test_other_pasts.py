"""Models whose past is no plain list of keys and values: the answers of plain transformers.

State spaces, convolutions, linear attention, attention that looks ahead: what a model cannot do in
a batch is done another way, whatever the lengths of texts and answers.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import DynamicCache

from evomerge.evaluate.engines.transformers.decoding import Rows
from evomerge.evaluate.engines.transformers.engine import TransformersEngine
from evomerge.evaluate.engines.transformers.forward_options import ForwardOptions
from tests.architectures import (
    ARCHITECTURES,
    OTHER_PASTS,
    load_whole,
    save_architecture,
)
from tests.checkpoints import word_tokenizer
from tests.evaluate.test_engine import continuation, generated, prompt
from tests.evaluate.test_live_model import UNSCORABLE, words
from tests.evaluate.test_packing import engine_of

ASKED = [continuation(words(3 + 4 * i % 23, seed=i), 1 + i % 3) for i in range(12)]
PROMPTS = [prompt(words(2 + 5 * i % 19, seed=i), limit_tokens=1 + 3 * (i % 4)) for i in range(10)]
"""Of unequal lengths, with answers that end at different steps."""

PADDED = {
    **{name: (4,) for name in ARCHITECTURES if name not in UNSCORABLE},
    **{name: ("auto",) if name in UNSCORABLE else ("auto", 4) for name in OTHER_PASTS},
}
"""Sizes of batches."""


@pytest.mark.parametrize(("name", "batch_sizes"), PADDED.items(), ids=PADDED)
def test_batches_give_what_plain_transformers_gives_row_by_row(
    name: str, batch_sizes: tuple[object, ...], tmp_path: Path
) -> None:
    save_architecture(tmp_path, name)
    plain = load_whole(tmp_path, name).eval()
    likely, said = [], []
    for request in ASKED:
        ids = torch.from_numpy(request.tokens)
        with torch.no_grad():
            rows = plain(ids[None, :-1]).logits[0].double().log_softmax(-1)[-request.scored :]
        targets = ids[-request.scored :]
        value = float(rows.gather(1, targets[:, None]).sum())
        likely.append((pytest.approx(value, abs=1e-4), bool((rows.argmax(-1) == targets).all())))
    for request in PROMPTS:
        answer = generated(plain, request.tokens.tolist(), max_new_tokens=request.limit_tokens)
        said.append(word_tokenizer().decode(answer, skip_special_tokens=True))
    for batch_size in batch_sizes:
        engine = engine_of(tmp_path, batch_size=batch_size)
        assert [(value, greedy) for value, greedy in engine.loglikelihood(ASKED)] == likely
        assert engine.generate(PROMPTS) == said


ROWS = {
    "llama": (Rows.PADDED, Rows.PADDED),
    "qwen2_vl": (Rows.PADDED, Rows.PADDED),
    "lfm2": (Rows.PADDED, Rows.PADDED),
    "mamba": (Rows.PADDED, Rows.PADDED_AT_FIRST),
    "paligemma": (Rows.EQUAL, Rows.EQUAL),
    "rwkv": (Rows.PADDED, Rows.SINGLE),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_model_is_given_the_freest_batches_that_it_reads_exactly(
    name: str, tmp_path: Path
) -> None:
    engine = engine_of(save_architecture(tmp_path, name), batch_size=4)
    assert engine._batches is not None
    assert (engine._batches.limits.scored, engine._batches.limits.answered) == ROWS[name]


@pytest.mark.parametrize(
    ("mistake", "expected"),
    [
        ("padding on the left is seen", (Rows.PADDED, Rows.EQUAL)),
        ("padding on the right is seen", (Rows.EQUAL, Rows.PADDED)),
        ("rows stay in the cache", (Rows.PADDED, Rows.SINGLE)),
        ("the past is dropped", (Rows.PADDED, Rows.SINGLE)),
    ],
)
def test_what_a_model_cannot_do_is_found_out_and_done_another_way(
    mistake: str,
    expected: tuple[Rows, Rows],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save_architecture(tmp_path, "llama")
    run = TransformersEngine._run

    def wrong(self: TransformersEngine, ids: torch.Tensor, **given: object) -> torch.Tensor:
        if mistake == "padding on the left is seen":
            given["attention_mask"] = None
        if mistake == "the past is dropped":
            given["past"] = None
        logits = run(self, ids, **given)
        blank = mistake == "padding on the right is seen" and "past" not in given
        if blank and bool((ids == 0).any()):
            logits = logits * (1 + (ids == 0).sum(1))[:, None, None]
        return logits

    monkeypatch.setattr(TransformersEngine, "_run", wrong)
    if mistake == "rows stay in the cache":
        monkeypatch.setattr(DynamicCache, "reorder_cache", lambda self, kept: None)
    engine = engine_of(tmp_path, batch_size=4)
    assert engine._batches is not None
    assert (engine._batches.limits.scored, engine._batches.limits.answered) == expected
    plain = load_whole(tmp_path, "llama").eval()
    for request, text in zip(PROMPTS, engine.generate(PROMPTS), strict=True):
        said = generated(plain, request.tokens.tolist(), max_new_tokens=request.limit_tokens)
        assert text == word_tokenizer().decode(said, skip_special_tokens=True)


def test_a_trial_leaves_the_global_random_state_alone_and_costs_no_candidate(
    tmp_path: Path,
) -> None:
    folder = save_architecture(tmp_path, "qwen3_next")
    before = torch.get_rng_state()
    engine = TransformersEngine(folder, tokenizer=word_tokenizer(), dtype="float32")
    assert torch.equal(before, torch.get_rng_state())
    assert engine.forward_s == 0.0


class _Old:
    def forward(self, input_ids: object, past_key_values: object = None) -> None: ...


class _New:
    def forward(
        self, input_ids: object, cache: object = None, logits_to_keep: object = None
    ) -> None: ...


@pytest.mark.parametrize(("model", "name"), [(_Old(), "past_key_values"), (_New(), "cache")])
def test_the_past_is_given_by_the_name_that_the_model_has_for_it(model: object, name: str) -> None:
    options = ForwardOptions(model)  # type: ignore[arg-type]
    assert options.takes("past")
    assert not options.takes("past", "position_ids")
    assert options.named({"past": 7, "use_cache": True, "attention_mask": None}) == {name: 7}


def test_an_option_that_answers_depend_on_is_never_left_out() -> None:
    options = ForwardOptions(_New())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="_New takes no position_ids"):
        options.named({"position_ids": 3})
    assert options.named({"logits_to_keep": 1}) == {"logits_to_keep": 1}
    options.leave_out("logits_to_keep")
    assert options.named({"logits_to_keep": 1}) == {}
