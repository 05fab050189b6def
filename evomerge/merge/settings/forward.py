"""Settings of the forward pass in a configuration, and where the models of a merge disagree.

Settings are compared as transformers reads them, with defaults filled in and old names replaced.
Every setting counts unless it is known to have no effect, so that no difference goes unnoticed.
"""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from evomerge.sources import ask

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

Config = Mapping[str, Any]

_SECTIONS = ("text_config", "llm_config", "language_config")
"""Where models of several kinds keep the language model's settings."""

_NAMES = """
_name_or_path transformers_version model_type auto_map torch_dtype dtype use_cache return_dict
return_dict_in_generate output_hidden_states output_attentions output_scores problem_type
id2label label2id num_labels finetuning_task task_specific_params tokenizer_class prefix
initializer_range initializer_factor init_std pretraining_tp chunk_size_feed_forward
attn_implementation _attn_implementation gradient_checkpointing torchscript pruned_heads
router_aux_loss_coef router_z_loss_coef output_router_logits aux_loss_alpha seq_aux
use_mamba_kernels use_flash_attention use_flash_attn unsloth_version unsloth_fixed
quantization_config embd_pdrop resid_pdrop attn_pdrop summary_type summary_use_proj
summary_activation summary_first_dropout summary_proj_to_labels
"""
_WITHOUT_EFFECT = frozenset(_NAMES.split())
"""Names, versions, dtypes, settings for training alone, and how a pass is computed."""

_ENDINGS_WITHOUT_EFFECT = re.compile(
    r"(_token_ids?|_token_index|dropout|dropout_prob|jitter_noise)$"
)

_COMPARED_ELSEWHERE = frozenset(
    {
        "architectures",
        "vocab_size",
        "tie_word_embeddings",
        "num_hidden_layers",
        "n_layer",
        "n_layers",
        "num_layers",
        "depth",
    }
)
"""Settings that `check_compatible`, the vocabulary or slices compare in more detail."""


def read_config(config: Config) -> PreTrainedConfig | None:
    """The configuration as transformers reads it; None if transformers does not know its class."""
    from transformers import AutoConfig

    settings = copy.deepcopy(dict(config))
    try:
        return AutoConfig.for_model(str(settings.pop("model_type", None)), **settings)
    except Exception:  # each class has its own way to say what it does not take
        return None


def forward_settings(config: Config) -> dict[str, Any]:
    """Every setting that may change a pass, by name; names of nested settings are joined by dots.

    Settings of the language model get no prefix.
    """
    question = ask("forward", config)
    if question.answer is not None:
        return dict(question.answer)
    read = read_config(config)
    settings = dict(_flat(dict(config) if read is None else read.to_dict()))
    question.keep(settings)
    return settings


def pass_key(config: Config) -> str:
    """A text that is the same for configurations with the same forward pass."""
    settings = {**forward_settings(config), "of": config.get("model_type")}
    return json.dumps(settings, sort_keys=True, default=str)


def differing_settings(configs: Mapping[str, Config]) -> dict[str, dict[str, Any]]:
    """Setting -> model -> its value, for the settings that differ between models.

    configs: by the models' names. Between models of several kinds, for example a language model and
    a vision-language model, only the settings that all of them have are compared.
    """
    found = {name: forward_settings(config) for name, config in configs.items()}
    kinds = {config.get("model_type") for config in configs.values()}
    keys = dict.fromkeys(key for settings in found.values() for key in settings)
    differing: dict[str, dict[str, Any]] = {}
    for key in keys:
        if key in _COMPARED_ELSEWHERE:
            continue
        if len(kinds) > 1 and not all(key in settings for settings in found.values()):
            continue
        values = {name: settings.get(key) for name, settings in found.items()}
        first, *others = values.values()
        if not all(_same(first, other) for other in others):
            differing[key] = values
    return differing


def _flat(settings: Config, before: str = "") -> Iterator[tuple[str, Any]]:
    nested = [name for name in _SECTIONS if isinstance(settings.get(name), Mapping)]
    for key, value in settings.items():
        if key in _WITHOUT_EFFECT or _ENDINGS_WITHOUT_EFFECT.search(key) or key in nested:
            continue
        if key == "type" and "rope_type" in settings:
            continue  # the old name of rope_type
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield before + key, value
    for name in nested:  # nested settings replace those at the top
        yield from _flat(settings[name], before)


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        # Lists with one entry for each layer, of models of different depths: slices handle them.
        return len(first) != len(second) or all(map(_same, first, second))
    if isinstance(first, float) and isinstance(second, float) and math.isnan(first):
        return math.isnan(second)
    return bool(first == second)


def describe(differing: Mapping[str, Mapping[str, Any]]) -> str:
    """The settings that differ, in words: each value with the models that have it."""
    return "; ".join(f"{key} is {_values(values)}" for key, values in differing.items())


def _values(values: Mapping[str, Any]) -> str:
    models_by_value: dict[str, list[str]] = {}
    for name, value in values.items():
        models_by_value.setdefault("not set" if value is None else str(value), []).append(name)
    return ", ".join(
        f"{value} in {' and '.join(names)}" for value, names in models_by_value.items()
    )
