"""The model that transformers builds from a configuration, without memory for its weights.

It shows which tensors of a checkpoint transformers loads and under which names, which of them share
one weight, and which would be missing or left over in a load. It needs only names and shapes: no
weight is read, and a model of 7B parameters takes a fraction of a second.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge.deferred import torch
from evomerge.errors import one_line

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

_DEEPEST = 10_000
"""The most layers of a model; a larger number counts as a mistake, and no model is built."""

_COUNTS_LAYERS = re.compile(r"layers?$|layers_per_stack$")
"""Settings that may be numbers of layers; Gemma's vocab_size_per_layer_input is none."""

_LONGEST = 240
"""The most characters of a reason in a message."""

_PRETRAINING = "the model of pretraining"

_MODELS_OF_CODE = (
    "AutoModelForCausalLM",
    "AutoModelForImageTextToText",
    "AutoModelForSeq2SeqLM",
    "AutoModelForMaskedLM",
    "AutoModelForSequenceClassification",
    "AutoModel",
)
"""The keys with which a configuration names a class of its own code, the fullest model first."""

_Choice = Callable[["PreTrainedConfig"], "type[PreTrainedModel]"]


class UnknownModelError(Exception):
    """transformers has no class for the configuration, or lacks a package that the class needs."""


class UnbuildableModelError(Exception):
    """transformers knows the class, but the configuration does not fit it."""


def short(error: Exception) -> str:
    """The message of transformers, on one line of limited length."""
    message = one_line(error)
    return message if len(message) <= _LONGEST else f"{message[:_LONGEST]}…"


@dataclass(frozen=True, kw_only=True)
class Loading:
    """The result of loading a model in transformers: names of its parameters and buffers.

    missing: not among the tensors. unexpected: tensors that the model has no place for. misshapen:
    tensors with another shape than in the model.
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[str, ...]

    @property
    def problem(self) -> str | None:
        """The problem in words, with the first such tensor; None where there is none."""
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
    """How transformers names a stored tensor.

    name: of the parameter or buffer that it becomes. taken: whether the model has that. joined:
    whether it is combined with other tensors into one parameter, or split into several.
    """

    name: str
    taken: bool
    joined: bool


class MetaModel:
    """A model of transformers on the meta device; made by `meta_model`."""

    def __init__(self, model: PreTrainedModel) -> None:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, WeightRenaming

        self._model = model
        self._expected = model.state_dict()
        conversions = get_model_conversion_mapping(model)
        self._renamings = [
            conversion for conversion in conversions if isinstance(conversion, WeightRenaming)
        ]
        self._converters = [
            conversion for conversion in conversions if isinstance(conversion, WeightConverter)
        ]

    @property
    def module(self) -> PreTrainedModel:
        """The model itself; its tensors have no values."""
        return self._model

    @property
    def tied(self) -> Mapping[str, str]:
        """Parameter -> the parameter that it shares its weight with, by class and configuration."""
        tied: Mapping[str, str] = self._model.all_tied_weights_keys
        return tied

    def rename(self, tensor: str) -> Renaming:
        """The name that transformers gives a stored tensor."""
        from transformers.core_model_loading import rename_source_key

        prefix = self._model.base_model_prefix
        name, converter = rename_source_key(
            tensor, self._renamings, self._converters, prefix, self._expected
        )
        if name not in self._expected and tensor in self._expected:
            # A pattern matched the name by mistake; transformers then uses the name itself.
            name, converter = rename_source_key(tensor, [], [], prefix, self._expected)
        return Renaming(name=name, taken=name in self._expected, joined=converter is not None)

    def load(self, shapes: Mapping[str, tuple[int, ...]]) -> Loading:
        """Load tensors of these names and shapes as transformers' from_pretrained does.

        Raises UnbuildableModelError for a failure that `Loading` does not cover.
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
        except Exception as error:  # the conversions of an architecture may raise anything
            raise UnbuildableModelError(one_line(error)) from error
        return Loading(
            missing=tuple(sorted(found["missing_keys"])),
            unexpected=tuple(sorted(found["unexpected_keys"])),
            misshapen=tuple(sorted(str(mismatch[0]) for mismatch in found["mismatched_keys"])),
        )


def meta_model(config: Mapping[str, Any], *, code: Path | None = None) -> MetaModel:
    """The model that a config.json describes: of the class it names, else a causal language model.

    code: a folder with modelling code that may be run if the configuration names some. Raises
    UnknownModelError, UnbuildableModelError.
    """
    text = json.dumps(config, sort_keys=True)
    return _of_code(text, code) if code is not None and config.get("auto_map") else _built(text)


def pretraining_model(config: Mapping[str, Any]) -> MetaModel | None:
    """The pretraining model of the same kind, with heads that the checkpoint may have lost since.

    None where there is no such model.
    """
    text = json.dumps({**config, "architectures": [_PRETRAINING]}, sort_keys=True)
    try:
        return _built(text)
    except (UnknownModelError, UnbuildableModelError):
        return None


@functools.lru_cache(maxsize=16)
def _built(text: str) -> MetaModel:
    import transformers

    config = json.loads(text)
    if config.get("model_type") not in transformers.CONFIG_MAPPING:
        raise UnknownModelError(f"transformers does not know {config.get('model_type')}")
    return _build(text, lambda read: _class_of(config, read), folder=None)


def _of_code(text: str, folder: Path) -> MetaModel:
    """Build by the modelling code in a folder; the code may change, so the model is not cached."""
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    named = json.loads(text)["auto_map"]
    reference = next((named[key] for key in _MODELS_OF_CODE if key in named), None)
    if reference is None:
        return _built(text)
    try:
        return _build(
            text, lambda read: get_class_from_dynamic_module(reference, str(folder)), folder=folder
        )
    except UnbuildableModelError as error:  # the code may need packages that are missing
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
    except Exception as error:  # each architecture checks its configuration in its own way
        raise UnbuildableModelError(one_line(error)) from error


def _read_config(text: str, folder: Path | None) -> PreTrainedConfig:
    """Read the text as transformers reads a file: with older forms and numbers beyond JSON."""
    from transformers import AutoConfig

    if folder is not None:
        return AutoConfig.from_pretrained(folder, trust_remote_code=True, local_files_only=True)
    with tempfile.TemporaryDirectory() as written:
        Path(written, "config.json").write_text(text, encoding="utf-8")
        return AutoConfig.from_pretrained(written, trust_remote_code=False, local_files_only=True)


def _class_of(config: Mapping[str, Any], read: PreTrainedConfig) -> type[PreTrainedModel]:
    """The class that `architectures` names, else the causal language model of the type."""
    import transformers

    named = next(iter(config.get("architectures") or ()), None)
    if named == _PRETRAINING:
        kind = transformers.MODEL_FOR_PRETRAINING_MAPPING.get(type(read), None)
    else:
        kind = getattr(transformers, str(named), None) if named else None
    if named is None:
        kind = transformers.MODEL_FOR_CAUSAL_LM_MAPPING.get(type(read), None)
    if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
        raise UnknownModelError(f"transformers has no class {named or config.get('model_type')}")
    return kind


def _refuse_depths(config: Mapping[str, Any]) -> None:
    """Refuse a configuration that would build a huge number of layers."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            _refuse_depths(value)
        elif _COUNTS_LAYERS.search(key) and isinstance(value, int) and value > _DEEPEST:
            raise UnbuildableModelError(f"{key}: {value} is more than {_DEEPEST} layers")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress transformers' progress bars and reports; their content is returned."""
    from transformers.utils import logging

    level, shown = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
