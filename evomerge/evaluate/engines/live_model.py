"""A live model built from a checkpoint's configuration, its weights still to come.

Parameters are allocated without a value and never read from the checkpoint; buffers that are not
in checkpoints (rotary frequencies) are computed as transformers computes them when it loads one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from evomerge.errors import SourceError, one_line
from evomerge.recipe import DType

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "num_beams": (None, 1),
    "no_repeat_ngram_size": (None, 0),
    "bad_words_ids": (None,),
    "sequence_bias": (None,),
    "min_length": (None, 0),
    "min_new_tokens": (None,),
    "forced_bos_token_id": (None,),
    "forced_eos_token_id": (None,),
    "suppress_tokens": (None, []),
    "begin_suppress_tokens": (None, []),
    "exponential_decay_length_penalty": (None,),
    "guidance_scale": (None, 1.0),
    "penalty_alpha": (None, 0.0),
    "dola_layers": (None,),
    "stop_strings": (None,),
    "watermarking_config": (None,),
}
"""Fields of generation_config.json that change greedy decoding, and the values that do not."""


def build_model(
    folder: Path, *, dtype: DType, device: torch.device, trust_remote_code: bool
) -> PreTrainedModel:
    """The model of `folder`/config.json on `device`, parameters allocated but not set.

    Raises SourceError where the configuration is missing or is not a causal language model.
    """
    torch_dtype: torch.dtype = getattr(torch, dtype)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                config, dtype=torch_dtype, trust_remote_code=trust_remote_code
            )
    except (OSError, ValueError, KeyError) as error:
        reason = one_line(error)
        raise SourceError(
            f"{folder}: no causal language model can be built from config.json ({reason}); "
            "give a checkpoint that transformers can load"
        ) from error
    model.to_empty(device=device)
    model.tie_weights()
    _keep_in_float32(model, torch_dtype)
    _compute_buffers(model)
    model.eval()
    model.requires_grad_(False)
    return model


def _compute_buffers(model: PreTrainedModel) -> None:
    """Give buffers their values, as transformers does for what a checkpoint does not hold.

    Parameters are marked as set, or they would be filled with random numbers first.
    """
    marked = list(model.parameters())
    for parameter in marked:
        parameter._is_hf_initialized = True
    for module in model.modules():
        # Set while the empty model was made on the meta device, where buffers have no values.
        module.__dict__.pop("_is_hf_initialized", None)
    model.initialize_weights()


def _keep_in_float32(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Some architectures keep a few small parameters in float32 whatever the dtype."""
    kept = list(model._get_dtype_plan(dtype))
    for name, parameter in model.named_parameters():
        if any(part in name for part in kept):
            parameter.data = parameter.data.float()


def read_generation_config(folder: Path, model: PreTrainedModel) -> GenerationConfig:
    """What transformers would decode with: generation_config.json, else the model's config.

    Raises SourceError where it asks for something other than greedy decoding with a repetition
    penalty (sampling fields are ignored: tasks ask for greedy decoding).
    """
    if not (folder / "generation_config.json").is_file():
        return GenerationConfig.from_model_config(model.config)
    config = GenerationConfig.from_pretrained(folder)
    for field, neutral in _NEUTRAL.items():
        value = getattr(config, field, None)
        if value not in neutral:
            raise SourceError(
                f"{folder / 'generation_config.json'}: {field}: {value} changes greedy decoding "
                "and is not supported; remove the field"
            )
    return config
