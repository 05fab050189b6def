"""Builds a live model from a checkpoint's configuration; its weights are loaded later.

Parameters are allocated without values and never read from the checkpoint. Buffers that are not in
checkpoints (rotary frequencies) are computed as transformers computes them when it loads one. Code
that comes with a model runs only if it is trusted.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import torch
import transformers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)
from transformers.utils import CONFIG_NAME, GENERATION_CONFIG_NAME

from evomerge.errors import SourceError
from evomerge.evaluate.engines.weight_loader import WeightLoader
from evomerge.recipe import DType
from evomerge.sources import Source, short
from evomerge.vocabulary import TokenSettings, config_folder

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "num_beams": (None, 1),
    "no_repeat_ngram_size": (None, 0),
    "encoder_no_repeat_ngram_size": (None, 0),
    "encoder_repetition_penalty": (None, 1.0),
    "bad_words_ids": (None,),
    "sequence_bias": (None,),
    "min_length": (None, 0),
    "min_new_tokens": (None,),
    "max_time": (None,),
    "token_healing": (None, False),
    "constraints": (None,),
    "force_words_ids": (None,),
    "is_assistant": (None, False),
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


class Builder(Protocol):
    """An Auto class of transformers: it chooses the model class by the configuration."""

    def from_config(self, config: PreTrainedConfig, **options: object) -> PreTrainedModel:
        """The configuration's model, its parameters not loaded."""

    def from_pretrained(self, folder: Path, **options: object) -> PreTrainedModel:
        """The model of a folder, loaded."""


def build_model(
    folder: Path,
    *,
    dtype: DType,
    device: torch.device,
    trust_remote_code: bool,
    settings: TokenSettings | None = None,
    config: Mapping[str, Any] | None = None,
    only: str = "",
) -> PreTrainedModel:
    """The model of `folder`/config.json on `device`, parameters allocated but not set.

    A causal language model, or a vision-language model, which then reads text alone. settings:
    values of the vocabulary that replace those of the configuration. config: used in place of the
    file in the folder. only: name of the module that gets memory; all others stay on the meta
    device. Raises SourceError if the configuration is missing or is of another kind.
    """
    torch_dtype: torch.dtype = getattr(torch, dtype)
    read = _configuration(
        folder, config, trust_remote_code=trust_remote_code, settings=settings or TokenSettings()
    )
    model = _without_memory(folder, read, torch_dtype, trust_remote_code=trust_remote_code)
    model.get_submodule(only).to_empty(device=device)
    model.tie_weights()
    _keep_in_float32(model, torch_dtype)
    _compute_buffers(model)
    _copy_buffers(model, partial(_build, folder, read, torch_dtype, trust_remote_code))
    model.eval()
    model.requires_grad_(False)
    return model


def check_model(source: Source, *, trust_remote_code: bool, settings: TokenSettings) -> None:
    """Raise SourceError, in one line, if no live model can be built and filled from a source.

    No memory is allocated, so this can run before a search has a folder.
    """
    folder = config_folder(source)
    read = _configuration(
        folder, source.config, trust_remote_code=trust_remote_code, settings=settings
    )
    model = _without_memory(folder, read, torch.float32, trust_remote_code=trust_remote_code)
    model.tie_weights()
    shapes = source.structure.shapes
    try:
        WeightLoader(model).fill(
            (name, torch.empty(shape, device="meta")) for name, shape in shapes.items()
        )
    except SourceError as error:
        raise SourceError(f"{source.reference}: {error}") from error


def _configuration(
    folder: Path,
    config: Mapping[str, Any] | None,
    *,
    trust_remote_code: bool,
    settings: TokenSettings,
) -> PreTrainedConfig:
    """The configuration of the folder, or one of its class with the values of `config`."""
    with _refusing(folder, trust_remote_code=trust_remote_code):
        if config is not None and not (folder / CONFIG_NAME).is_file():
            read = AutoConfig.for_model(**_values(config))
        else:
            read = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
            if config is not None:
                read = type(read).from_dict(_values(config))
                read.name_or_path = str(folder)  # where its own code is
        _set(read, settings)
    return read


def _values(config: Mapping[str, Any]) -> dict[str, Any]:
    """What transformers reads from a file of this configuration: infinity is an object there."""
    with TemporaryDirectory() as folder:
        Path(folder, CONFIG_NAME).write_text(json.dumps(dict(config)), encoding="utf-8")
        values: dict[str, Any] = PreTrainedConfig.get_config_dict(folder)[0]
    return values


@contextmanager
def _refusing(folder: Path, *, trust_remote_code: bool) -> Iterator[None]:
    """Within, an error of transformers or of a model's own code becomes a SourceError."""
    try:
        yield
    except SourceError:
        raise
    except Exception as error:
        if not trust_remote_code and _has_code(folder):
            raise SourceError(
                f"{folder}: the model comes with code of its own, which is only run where it is "
                "trusted; read it, then set models.trust_remote_code: true"
            ) from error
        raise SourceError(
            f"{folder}: no causal language model can be built from config.json ({short(error)}); "
            "give a checkpoint that transformers can load"
        ) from error


def _has_code(folder: Path) -> bool:
    """Whether the configuration names code outside transformers."""
    try:
        return "auto_map" in PreTrainedConfig.get_config_dict(folder)[0]
    except (OSError, ValueError):
        return False


def _without_memory(
    folder: Path, config: PreTrainedConfig, dtype: torch.dtype, *, trust_remote_code: bool
) -> PreTrainedModel:
    with torch.device("meta"):
        return _build(folder, config, dtype, trust_remote_code)


def _build(
    folder: Path, config: PreTrainedConfig, dtype: torch.dtype, trust_remote_code: bool
) -> PreTrainedModel:
    with _refusing(folder, trust_remote_code=trust_remote_code):
        builder = builder_of(config, folder)
        return builder.from_config(config, dtype=dtype, trust_remote_code=trust_remote_code)


def builder_of(config: PreTrainedConfig, folder: Path) -> Builder:
    """The Auto class for the architecture of a configuration.

    An unknown architecture gets the one for causal language models. An encoder is refused:
    transformers would make a causal language model of it, with weights that its checkpoint does not
    have.
    """
    architecture = next(iter(config.architectures or ()), "")
    builder: Builder = AutoModelForCausalLM
    code = getattr(config, "auto_map", None) or {}
    if AutoModelForImageTextToText.__name__ in code and AutoModelForCausalLM.__name__ not in code:
        builder = AutoModelForImageTextToText
        return builder
    if architecture in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        return builder
    if architecture in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.values():
        builder = AutoModelForImageTextToText
    elif architecture and hasattr(transformers, architecture):
        raise SourceError(
            f"{folder}: {architecture} cannot be scored, tasks need a model that continues text; "
            "`evomerge merge` merges such models without scoring them"
        )
    return builder


def _set(config: PreTrainedConfig, settings: TokenSettings) -> None:
    """Set the language model's values in its section, and at the top if they are there too."""
    text = config.get_text_config()
    for key, value in settings.config.items():
        setattr(text, key, value)
        if hasattr(config, key):
            setattr(config, key, value)


def _compute_buffers(model: PreTrainedModel) -> None:
    """Give buffers their values, as transformers does for those that a checkpoint does not hold.

    Parameters are marked as set, or they would be filled with random numbers first. Buffers that
    are not computed hold NaN.
    """
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.fill_(torch.nan)
    marked = list(model.parameters())
    for parameter in marked:
        parameter._is_hf_initialized = True
    for module in model.modules():
        # Set while the empty model was made on the meta device, where buffers have no values.
        module.__dict__.pop("_is_hf_initialized", None)
    with torch.random.fork_rng(devices=[]):
        model.initialize_weights()


def _copy_buffers(model: PreTrainedModel, build: Callable[[], PreTrainedModel]) -> None:
    """Copy the buffers that transformers does not compute from a model that is built anew.

    Code that comes with a model computes some buffers while the model is built. Buffers of
    checkpoints are copied too; their real values are loaded later.
    """
    missing = {
        name: buffer
        for name, buffer in model.named_buffers()
        if buffer.is_floating_point() and not buffer.is_meta and bool(buffer.isnan().any())
    }
    if missing:
        with torch.random.fork_rng(devices=[]):
            built = dict(build().named_buffers())
        for name, buffer in missing.items():
            buffer.copy_(built[name])


def _keep_in_float32(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Some architectures keep a few small parameters in float32 whatever the dtype."""
    kept = list(model._get_dtype_plan(dtype))
    for name, parameter in model.named_parameters():
        if any(part in name for part in kept):
            parameter.data = parameter.data.float()


def read_generation_config(
    folder: Path, config: Mapping[str, Any] | None, settings: TokenSettings
) -> GenerationConfig:
    """The settings that transformers would decode with, from generation_config.json or config.json.

    config: read in place of config.json; None for the file. settings: values of the vocabulary that
    replace those of the files. Raises SourceError for anything other than greedy decoding with a
    repetition penalty. Sampling fields are ignored, because tasks need greedy decoding.
    """
    if not (folder / GENERATION_CONFIG_NAME).is_file():
        stated = PreTrainedConfig.get_config_dict(folder)[0] if config is None else config
        return GenerationConfig.from_model_config({**copy.deepcopy(stated), **settings.config})
    found = GenerationConfig.from_pretrained(folder, **settings.generation)
    check_greedy(found, where=str(folder))
    return found


def check_greedy(config: GenerationConfig, *, where: str) -> None:
    """Raise SourceError for settings other than greedy decoding with a repetition penalty.

    Also for a penalty or an end token that is not valid: transformers would refuse it, or never
    end.
    """
    for field, neutral in _NEUTRAL.items():
        value = getattr(config, field, None)
        if value not in neutral:
            raise SourceError(
                f"{where}/generation_config.json: {field}: {value} changes greedy decoding "
                "and is not supported; remove the field"
            )
    penalty = config.repetition_penalty
    number = isinstance(penalty, int | float) and not isinstance(penalty, bool)
    if penalty is not None and not (number and 0.0 < penalty < math.inf):
        raise SourceError(
            f"{where}/generation_config.json: repetition_penalty: {penalty} is no number above 0; "
            "mend it, or remove the field"
        )
    for end in end_tokens_of(config):
        if not isinstance(end, int) or isinstance(end, bool):
            raise SourceError(
                f"{where}/generation_config.json: eos_token_id: {end!r} is not the number of a "
                "token; mend it, or remove the field"
            )


def end_tokens_of(config: GenerationConfig) -> list[int]:
    """The tokens that end an answer by these settings, in their order."""
    ends = config.eos_token_id
    return [end for end in (ends if isinstance(ends, list | tuple) else [ends]) if end is not None]
