"""The in-process engine: weights in place, the same numbers as transformers, honest failures."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MixtralConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen2MoeConfig,
)

from evomerge.errors import SourceError, TaskError
from evomerge.evaluate.engines.base import Continuation, NonFiniteLogits, Prompt
from evomerge.evaluate.engines.transformers.engine import TransformersEngine
from tests.checkpoints import WORDS, load_tensors, save_tiny_llama, word_tokenizer

_SHAPE = {
    "vocab_size": len(WORDS),
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
ARCHITECTURES: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**_SHAPE),
    "tied head": LlamaConfig(**_SHAPE, tie_word_embeddings=True),
    "scaled rotary frequencies": LlamaConfig(
        **_SHAPE,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 10000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    ),
    "biases": Qwen2Config(**_SHAPE),
    "sliding window and scaled embeddings": Gemma2Config(**_SHAPE, head_dim=8, sliding_window=16),
    "learned positions": GPT2Config(
        vocab_size=len(WORDS), n_embd=32, n_layer=2, n_head=4, n_positions=64, eos_token_id=2
    ),
    "experts renamed on load": MixtralConfig(**_SHAPE, num_local_experts=4),
    "experts and a shared one": Qwen2MoeConfig(
        **_SHAPE, num_experts=4, moe_intermediate_size=16, shared_expert_intermediate_size=16
    ),
}


def continuation(tokens: Sequence[int], scored: int) -> Continuation:
    return Continuation(tokens=np.array(tokens, dtype=np.int64), scored=scored)


def prompt(tokens: Sequence[int], *, stop: tuple[str, ...] = (), limit_tokens: int = 6) -> Prompt:
    return Prompt(tokens=np.array(tokens, dtype=np.int64), stop=stop, limit_tokens=limit_tokens)


def some_tokens(count: int, seed: int) -> list[int]:
    return [random.Random(f"{seed}/{i}").randrange(4, len(WORDS)) for i in range(count)]


def generated(model: torch.nn.Module, tokens: Sequence[int], **options: object) -> list[int]:
    """What transformers' own greedy `generate` says after one prompt."""
    said = model.generate(
        input_ids=torch.tensor([tokens]),
        attention_mask=torch.ones(1, len(tokens), dtype=torch.long),
        do_sample=False,
        pad_token_id=0,
        **options,
    )
    return said[0, len(tokens) :].tolist()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_model_built_from_its_configuration_computes_what_a_loaded_one_does(
    name: str, tmp_path: Path
) -> None:
    """Buffers that no checkpoint holds must be right, and every tensor in its place."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(ARCHITECTURES[name]).save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    engine = TransformersEngine(tmp_path, tokenizer=word_tokenizer(), dtype="float32")
    engine.load(load_tensors(tmp_path).items())
    ids = torch.tensor([some_tokens(30, seed=1), some_tokens(30, seed=2)])
    with torch.no_grad():
        # The same operations on the same numbers: equal to the last bit.
        assert torch.equal(engine.model(ids).logits, loaded(ids).logits)
    prompts = [some_tokens(5 + 4 * i, seed=i) for i in range(4)]
    said = engine.generate([prompt(tokens) for tokens in prompts])
    tokenizer = word_tokenizer()
    for tokens, text in zip(prompts, said, strict=True):
        expected = generated(loaded, tokens, max_new_tokens=6)
        assert text == tokenizer.decode(expected, skip_special_tokens=True)


def test_building_leaves_the_global_random_state_alone(base: Path) -> None:
    before = torch.get_rng_state()
    TransformersEngine(base, tokenizer=word_tokenizer(), dtype="float32")
    assert torch.equal(before, torch.get_rng_state())


def test_new_weights_replace_the_old_ones_in_place(
    engine: TransformersEngine, base: Path, expert: Path
) -> None:
    asked = [continuation(some_tokens(12, seed=i), 3) for i in range(5)]
    addresses = [parameter.data_ptr() for parameter in engine.model.parameters()]
    first = engine.loglikelihood(asked)
    engine.load(load_tensors(base).items())
    assert engine.loglikelihood(asked) != first
    engine.load(load_tensors(expert).items())
    assert engine.loglikelihood(asked) == first
    assert addresses == [parameter.data_ptr() for parameter in engine.model.parameters()]


def test_a_tied_head_that_a_checkpoint_repeats_is_accepted(tmp_path: Path) -> None:
    save_tiny_llama(tmp_path, seed=0, tied=True)
    engine = TransformersEngine(tmp_path, tokenizer=word_tokenizer(), dtype="float32")
    tensors = load_tensors(tmp_path)
    embeddings = tensors["model.embed_tokens.weight"]
    engine.load([*tensors.items(), ("lm_head.weight", torch.zeros_like(embeddings))])
    assert torch.equal(engine.model.lm_head.weight, embeddings)
    alone = {name: tensor for name, tensor in tensors.items() if "embed_tokens" not in name}
    engine.load([*alone.items(), ("lm_head.weight", embeddings + 1)])
    assert torch.equal(engine.model.model.embed_tokens.weight, embeddings + 1)


def test_tensors_that_do_not_fit_are_refused_by_name(
    engine: TransformersEngine, base: Path
) -> None:
    tensors = load_tensors(base)
    with pytest.raises(SourceError, match=r"^model\.layers\.9\.x: the live model has no such"):
        engine.load([*tensors.items(), ("model.layers.9.x", torch.zeros(2))])
    norm = tensors.pop("model.norm.weight")
    with pytest.raises(SourceError, match=r"^model\.norm\.weight: no tensor was given"):
        engine.load(tensors.items())
    with pytest.raises(SourceError, match=r"^model\.norm\.weight: shape \[16\] does not fit"):
        engine.load([*tensors.items(), ("model.norm.weight", norm[:16])])


def test_log_likelihoods_are_the_sums_of_the_models_log_probabilities(
    engine: TransformersEngine, expert: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(expert)
    asked = [
        continuation(some_tokens(6 + i, seed=i), scored)
        for i, scored in enumerate((1, 2, 5, 1, 3, 4))
    ]
    for request, (value, greedy) in zip(asked, engine.loglikelihood(asked), strict=True):
        ids = torch.from_numpy(request.tokens)
        with torch.no_grad():
            rows = model(ids[None, :-1]).logits[0].double().log_softmax(-1)[-request.scored :]
        targets = ids[-request.scored :]
        # float32 logits of differently padded batches.
        assert value == pytest.approx(float(rows.gather(1, targets[:, None]).sum()), abs=1e-4)
        assert greedy == bool((rows.argmax(-1) == targets).all())


def test_the_greedy_continuation_is_told_as_such(engine: TransformersEngine) -> None:
    context = some_tokens(9, seed=3)
    following = generated(engine.model, context, max_new_tokens=4)
    other = [*following[:-1], (following[-1] + 1) % len(WORDS)]
    answers = engine.loglikelihood(
        [continuation([*context, *following], 4), continuation([*context, *other], 4)]
    )
    assert [greedy for _, greedy in answers] == [True, False]


def test_requests_with_the_same_context_share_one_forward_pass(
    base: Path, expert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = TransformersEngine(base, tokenizer=word_tokenizer(), dtype="float32", batch_size=8)
    engine.load(load_tensors(expert).items())
    rows: list[int] = []
    forward = engine.model.forward
    monkeypatch.setattr(
        engine.model,
        "forward",
        lambda input_ids, **options: rows.append(len(input_ids)) or forward(input_ids, **options),
    )
    context = some_tokens(7, seed=0)
    engine.loglikelihood([continuation([*context, choice], 1) for choice in (5, 6, 7)])
    assert rows == [1]


def test_answers_do_not_depend_on_order_and_repeat_to_the_last_bit(
    engine: TransformersEngine,
) -> None:
    asked = [continuation(some_tokens(5 + i % 11, seed=i), 1 + i % 4) for i in range(90)]
    first = engine.loglikelihood(asked)
    assert engine.loglikelihood(asked) == first
    assert engine.loglikelihood(asked[::-1]) == first[::-1]


def test_batch_size_changes_no_answer_beyond_rounding(base: Path, expert: Path) -> None:
    asked = [continuation(some_tokens(5 + i % 11, seed=i), 1 + i % 4) for i in range(40)]
    prompts = [prompt(some_tokens(3 + i % 9, seed=i), limit_tokens=3 + i % 5) for i in range(20)]
    answers = []
    for batch_size in (1, 7, "auto"):
        engine = TransformersEngine(
            base,
            tokenizer=word_tokenizer(),
            dtype="float32",
            batch_size=batch_size,
        )
        engine.load(load_tensors(expert).items())
        likely = np.array([value for value, _ in engine.loglikelihood(asked)])
        answers.append((likely, engine.generate(prompts)))
    for likely, said in answers[1:]:
        np.testing.assert_allclose(likely, answers[0][0], atol=1e-4)  # float32 rounding
        assert said == answers[0][1]


def test_generation_ends_at_stop_texts_end_tokens_and_the_limit(
    engine: TransformersEngine,
) -> None:
    tokenizer = word_tokenizer()
    cut = 0
    for seed in range(8):
        tokens = some_tokens(4, seed=seed)
        whole = tokenizer.decode(
            generated(engine.model, tokens, max_new_tokens=9), skip_special_tokens=True
        )
        words = whole.split()
        stop = " ".join(words[2:4]) or "of"
        (said,) = engine.generate([prompt(tokens, stop=(stop,), limit_tokens=9)])
        assert said == whole.split(stop)[0]
        cut += said != whole
        (short,) = engine.generate([prompt(tokens, limit_tokens=2)])
        assert short.split() == words[:2]
    assert cut > 4


@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
def test_a_repetition_penalty_of_the_checkpoint_is_applied_as_transformers_does(
    tmp_path: Path, expert: Path, file: str
) -> None:
    save_tiny_llama(tmp_path, seed=0)
    settings = json.loads((tmp_path / file).read_text())
    settings["repetition_penalty"] = 1.7
    if file == "config.json":  # which is read for it where the other file is not there
        (tmp_path / "generation_config.json").unlink()
    (tmp_path / file).write_text(json.dumps(settings))
    engine = TransformersEngine(tmp_path, tokenizer=word_tokenizer(), dtype="float32")
    engine.load(load_tensors(expert).items())
    prompts = [some_tokens(4 + 3 * i, seed=i) for i in range(5)]
    said = engine.generate([prompt(tokens, limit_tokens=12) for tokens in prompts])
    penalised, free = (
        [
            word_tokenizer().decode(
                generated(engine.model, tokens, max_new_tokens=12, repetition_penalty=penalty),
                skip_special_tokens=True,
            )
            for tokens in prompts
        ]
        for penalty in (1.7, 1.0)
    )
    assert said == penalised
    assert said != free


def test_settings_that_greedy_decoding_does_not_cover_are_refused(tmp_path: Path) -> None:
    save_tiny_llama(tmp_path, seed=0)
    settings = json.loads((tmp_path / "generation_config.json").read_text())
    (tmp_path / "generation_config.json").write_text(json.dumps({**settings, "num_beams": 3}))
    engine = TransformersEngine(tmp_path, tokenizer=word_tokenizer(), dtype="float32")
    engine.load(load_tensors(tmp_path).items())
    with pytest.raises(SourceError, match=r"generation_config\.json: num_beams: 3"):
        engine.generate([prompt([5, 6])])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_fail_instead_of_scoring(
    engine: TransformersEngine, expert: Path, value: float
) -> None:
    tensors = load_tensors(expert)
    tensors["model.layers.2.mlp.down_proj.weight"][3, 4] = value
    engine.load(tensors.items())
    with pytest.raises(NonFiniteLogits, match="logits are not finite"):
        engine.loglikelihood([continuation(some_tokens(8, seed=0), 2)])
    with pytest.raises(NonFiniteLogits, match="logits are not finite"):
        engine.generate([prompt(some_tokens(8, seed=0))])


def test_requests_that_cannot_fit_are_refused(engine: TransformersEngine) -> None:
    with pytest.raises(TaskError, match="longer than the model's context of 256"):
        engine.loglikelihood([continuation(some_tokens(300, seed=0), 290)])
    with pytest.raises(TaskError, match="max_gen_toks: 256 leaves no room"):
        engine.generate([prompt([5], limit_tokens=256)])


def test_a_folder_without_a_language_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no causal language model can be built"):
        TransformersEngine(tmp_path, tokenizer=word_tokenizer(), dtype="float32")


def test_time_in_forward_passes_is_counted(engine: TransformersEngine) -> None:
    assert engine.forward_s == 0.0
    engine.loglikelihood([continuation(some_tokens(9, seed=0), 2)])
    once = engine.forward_s
    assert once > 0.0
    engine.generate([prompt(some_tokens(9, seed=0))])
    assert engine.forward_s > once
