"""The model that transformers builds of a configuration, without memory for its weights.

It says which tensors of a checkpoint transformers takes and under which name, which of them share
one weight, and what would be missing or left over if a model were loaded. Names and shapes are all
that is needed: no weight is read, and a model of 7B parameters takes a fraction of a second.
"""

from __future__ import annotations

import contextlib
import functools
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    rename_source_key,
)
from transformers.dynamic_module_utils import get_class_from_dynamic_module
from transformers.utils import logging

from evomerge.errors import one_line

_DEEPEST = 10_000
"""Layers beyond which a number is taken for a mistake, and no model is built."""

_LONGEST = 240
"""Characters of a reason that is passed on."""

_PRETRAINING = "the model of pretraining"

_MODELS_OF_CODE = (
    "AutoModelForCausalLM",
    "AutoModelForImageTextToText",
    "AutoModelForSeq2SeqLM",
    "AutoModelForMaskedLM",
    "AutoModelForSequenceClassification",
    "AutoModel",
)
"""Under which keys a configuration names a class of its own code, the fullest model first."""

_Choice = Callable[[PreTrainedConfig], type[PreTrainedModel]]


class UnknownModelError(Exception):
    """transformers has no class for the configuration, or lacks a package that the class needs."""


class UnbuildableModelError(Exception):
    """transformers knows the class, and the configuration does not suit it."""


def short(error: Exception) -> str:
    """What transformers says, on one line that is no page."""
    said = one_line(error)
    return said if len(said) <= _LONGEST else f"{said[:_LONGEST]}…"


@dataclass(frozen=True, kw_only=True)
class Loading:
    """What transformers says when it loads a model: names of the model's parameters and buffers.

    missing: not among the tensors. unexpected: tensors that it has no place for. misshapen: of
    another shape than the model has.
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[str, ...]

    @property
    def problem(self) -> str | None:
        """What is wrong, in words, by the first tensor of the kind; None where nothing is."""
        for names, meaning in (
            (self.missing, "missing"),
            (self.misshapen, "of another shape"),
            (self.unexpected, "without a place"),
        ):
            if names:
                more = f" and {len(names) - 1} more" if len(names) > 1 else ""
                return f"{names[0]}{more} {meaning}"
        return None


@dataclass(frozen=True, kw_only=True)
class Renaming:
    """A stored tensor as transformers sees it.

    name: of the parameter or buffer that it becomes. taken: whether the model has such a one.
    joined: whether it becomes a part of it together with others, or several.
    """

    name: str
    taken: bool
    joined: bool


class MetaModel:
    """A model of transformers on the meta device; made by `meta_model`."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._expected = model.state_dict()
        conversions = get_model_conversion_mapping(model)
        self._renamings = [each for each in conversions if isinstance(each, WeightRenaming)]
        self._converters = [each for each in conversions if isinstance(each, WeightConverter)]

    @property
    def module(self) -> PreTrainedModel:
        """The model itself; its tensors have no values."""
        return self._model

    @property
    def tied(self) -> Mapping[str, str]:
        """Parameter -> the one whose weight it shares, as class and configuration say."""
        tied: Mapping[str, str] = self._model.all_tied_weights_keys
        return tied

    def rename(self, tensor: str) -> Renaming:
        """What transformers calls a stored tensor."""
        prefix = self._model.base_model_prefix
        name, converter = rename_source_key(
            tensor, self._renamings, self._converters, prefix, self._expected
        )
        if name not in self._expected and tensor in self._expected:
            # A pattern took the name for another's; transformers then goes by the name itself.
            name, converter = rename_source_key(tensor, [], [], prefix, self._expected)
        return Renaming(name=name, taken=name in self._expected, joined=converter is not None)

    def load(self, shapes: Mapping[str, tuple[int, ...]]) -> Loading:
        """Load tensors of these names and shapes as transformers' from_pretrained does.

        Raises UnbuildableModelError where it fails otherwise than by what `Loading` tells.
        """
        tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
        try:
            with _quiet():
                _, found = type(self._model).from_pretrained(
                    None,
                    config=self._model.config,
                    state_dict=tensors,
                    device_map={"": "meta"},
                    dtype=torch.float32,
                    ignore_mismatched_sizes=True,
                    output_loading_info=True,
                )
        except Exception as error:  # whatever the conversions of one architecture raise
            raise UnbuildableModelError(one_line(error)) from error
        return Loading(
            missing=tuple(sorted(found["missing_keys"])),
            unexpected=tuple(sorted(found["unexpected_keys"])),
            misshapen=tuple(sorted(str(each[0]) for each in found["mismatched_keys"])),
        )


def meta_model(config: Mapping[str, Any], *, code: Path | None = None) -> MetaModel:
    """The model that a config.json describes: of the class that it names, else a causal one.

    code: a folder whose own modelling code may be run where the configuration names some. Raises
    UnknownModelError, UnbuildableModelError.
    """
    text = json.dumps(config, sort_keys=True)
    return _of_code(text, code) if code is not None and config.get("auto_map") else _built(text)


def pretraining_model(config: Mapping[str, Any]) -> MetaModel | None:
    """The model that one of this kind is first trained as, with heads that it may have lost since.

    None where there is no other.
    """
    text = json.dumps({**config, "architectures": [_PRETRAINING]}, sort_keys=True)
    try:
        return _built(text)
    except (UnknownModelError, UnbuildableModelError):
        return None


@functools.lru_cache(maxsize=16)
def _built(text: str) -> MetaModel:
    config = json.loads(text)
    if config.get("model_type") not in transformers.CONFIG_MAPPING:
        raise UnknownModelError(f"transformers does not know {config.get('model_type')}")
    return _build(text, lambda read: _class_of(config, read), folder=None)


def _of_code(text: str, folder: Path) -> MetaModel:
    """By the modelling code that lies in a folder; what it is may change, so nothing is kept."""
    named = json.loads(text)["auto_map"]
    reference = next((named[key] for key in _MODELS_OF_CODE if key in named), None)
    if reference is None:
        return _built(text)
    try:
        return _build(
            text, lambda read: get_class_from_dynamic_module(reference, str(folder)), folder=folder
        )
    except UnbuildableModelError as error:  # code of its own may want what is not here
        raise UnknownModelError(str(error)) from error


def _build(text: str, choose: _Choice, *, folder: Path | None) -> MetaModel:
    _refuse_depths(json.loads(text))
    try:
        with _quiet():
            config = _read_config(text, folder)
            model = choose(config).from_pretrained(
                None, config=config, state_dict={}, device_map={"": "meta"}, dtype=torch.float32
            )
            return MetaModel(model)
    except (ImportError, UnknownModelError) as error:
        raise UnknownModelError(one_line(error)) from error
    except Exception as error:  # configurations are checked by code of every architecture's own
        raise UnbuildableModelError(one_line(error)) from error


def _read_config(text: str, folder: Path | None) -> PreTrainedConfig:
    """Read as transformers reads a file, which knows older forms and numbers JSON has not."""
    if folder is not None:
        return AutoConfig.from_pretrained(folder, trust_remote_code=True, local_files_only=True)
    with tempfile.TemporaryDirectory() as written:
        Path(written, "config.json").write_text(text, encoding="utf-8")
        return AutoConfig.from_pretrained(written, trust_remote_code=False, local_files_only=True)


def _class_of(config: Mapping[str, Any], read: PreTrainedConfig) -> type[PreTrainedModel]:
    """The class that `architectures` names, else the causal language model of the type."""
    named = next(iter(config.get("architectures") or ()), None)
    if named == _PRETRAINING:
        kind = transformers.MODEL_FOR_PRETRAINING_MAPPING.get(type(read), None)
    else:
        kind = getattr(transformers, str(named), None) if named else None
    if named is None:
        kind = transformers.MODEL_FOR_CAUSAL_LM_MAPPING.get(type(read), None)
    if not (isinstance(kind, type) and issubclass(kind, PreTrainedModel)):
        raise UnknownModelError(f"transformers has no class {named or config.get('model_type')}")
    return kind


def _refuse_depths(config: Mapping[str, Any]) -> None:
    """No configuration makes this build a million layers."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            _refuse_depths(value)
        elif "layer" in key and isinstance(value, int) and value > _DEEPEST:
            raise UnbuildableModelError(f"{key}: {value} is more than {_DEEPEST} layers")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and reports of transformers: what they say is returned."""
    level, shown = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
