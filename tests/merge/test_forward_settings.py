"""What of two configurations changes a forward pass, whichever way they are written."""

from __future__ import annotations

from typing import Any

import pytest

from evomerge.merge.settings.forward import differing_settings, pass_key

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 32,
    "num_attention_heads": 4,
    "vocab_size": 60,
}


def differing(one: dict[str, Any], other: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return differing_settings({"a": one, "b": other})


@pytest.mark.parametrize(
    "same",
    [
        {"rope_theta": 10000.0},
        {"rope_theta": 10000.0, "rope_scaling": None, "rms_norm_eps": 1e-6},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
        {"torch_dtype": "bfloat16", "transformers_version": "4.30.0", "use_cache": False},
        {"eos_token_id": [2, 5], "pad_token_id": 0, "attention_dropout": 0.1},
    ],
)
def test_defaults_and_old_spellings_are_no_difference(same: dict[str, Any]) -> None:
    assert differing(LLAMA, {**LLAMA, **same}) == {}
    assert pass_key(LLAMA) == pass_key({**LLAMA, **same})


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"rope_theta": 5e5}, "rope_parameters.rope_theta"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_parameters.factor"),
        ({"rms_norm_eps": 1e-5}, "rms_norm_eps"),
        ({"max_position_embeddings": 64}, "max_position_embeddings"),
        ({"a_setting_of_tomorrow": 3}, "a_setting_of_tomorrow"),
    ],
)
def test_what_may_change_a_pass_is_named(change: dict[str, Any], key: str) -> None:
    found = differing(LLAMA, {**LLAMA, **change})
    assert key in found
    assert found[key]["a"] != found[key]["b"]
    assert pass_key(LLAMA) != pass_key({**LLAMA, **change})


def test_a_configuration_of_code_of_its_own_is_compared_as_it_is_written() -> None:
    own = {"model_type": "never_heard_of", "alpha": 1.0, "eos_token_id": 2}
    assert differing(own, {**own, "eos_token_id": 3}) == {}
    assert differing(own, {**own, "alpha": 2.0}) == {"alpha": {"a": 1.0, "b": 2.0}}


def test_a_model_that_sees_is_compared_in_what_both_have() -> None:
    seeing = {"model_type": "llava", "text_config": LLAMA, "vision_config": {}}
    assert differing(seeing, LLAMA) == {}
    text = {**LLAMA, "rms_norm_eps": 1e-5}
    assert list(differing({**seeing, "text_config": text}, LLAMA)) == ["rms_norm_eps"]
