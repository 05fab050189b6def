"""What lies beside the weights of a merged checkpoint: all that the leading model has there.

Code is copied only where a file of the result names it, and is never run here. Weights,
configurations and the tokenizer are written elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from evomerge.errors import SourceError
from evomerge.merge import MergedSource
from evomerge.sources import MODULES, Adapter, Source, find_companions
from evomerge.vocabulary import GENERATION_CONFIG, TOKENIZER_FILES, AlignedSource, tokenizer_folder

_CODE = "auto_map"
"""Where a configuration names code of the model's own: what transformers builds -> MODULE.CLASS."""

_WRITTEN = ("config.json", GENERATION_CONFIG, "*.index.json", "adapter_*")
"""Made anew for a merge, or of no meaning in it."""

_SHOWN = 3
"""Files that are named in a note."""


@dataclass(frozen=True, kw_only=True)
class Beside:
    """What is copied into a merged checkpoint, by its path there.

    config: of the leading model. code: whether it names code that lies there, so that it must be
    trusted.
    notes: in sentences, what was left out and might be missed, and what is not merged.
    """

    files: Mapping[str, Path]
    config: Mapping[str, Any]
    code: bool
    notes: tuple[str, ...]


def find_beside(
    lead: Source,
    tokenizer_source: Source,
    others: Iterable[Source] = (),
    *,
    trust_remote_code: bool,
) -> Beside:
    """What a merge has beside its weights, of an opened leading model and that of its tokenizer.

    others: the models that it is a merge of, of which nothing is copied. Raises SourceError where
    the model's own code is needed and not there.
    """
    own, tokens = own_files(lead), _tokenizer_files(tokenizer_source)
    files = {
        name: path
        for name, path in own.items()
        if not _matches(name, (*_WRITTEN, *TOKENIZER_FILES))
    }
    keeps = keeps_code(lead.config, trust_remote_code=trust_remote_code)
    if keeps:
        _refuse_missing_code(lead, own)
    if keeps or _names_code(files) or _names_code(tokens):
        files |= {name: path for name, path in {**tokens, **own}.items() if _is_code(name)}
    else:
        files = {name: path for name, path in files.items() if not _is_code(name)}
    return Beside(
        files=files, config=lead.config, code=keeps, notes=tuple(_notes(lead, files, others))
    )


def keeps_code(config: Mapping[str, Any], *, trust_remote_code: bool) -> bool:
    """Whether config.json names code of the model's own that loads the result.

    It is left out where transformers has code for the model and nobody trusted the other.
    """
    known = config.get("model_type") in CONFIG_MAPPING_NAMES
    return bool(config.get(_CODE)) and (trust_remote_code or not known)


def own_files(source: Source) -> Mapping[str, Path]:
    """What lies beside the weights of the model that a source is made of, the base of an adapter's.

    What an adapter alone has stands beside it.
    """
    if isinstance(source, AlignedSource):
        return own_files(source.own)
    if isinstance(source, MergedSource):
        return own_files(source.lead)
    files = find_companions(source.folder, source.reference).files
    return {**files, **own_files(source.base)} if isinstance(source, Adapter) else files


def _tokenizer_files(source: Source) -> Mapping[str, Path]:
    """What a tokenizer is read from, and the code beside it; an adapter without has its base's.

    Nothing where the tokenizer is one that transformers writes out.
    """
    if isinstance(source, AlignedSource) and source.tokenizer is not None:
        return {}
    folder = tokenizer_folder(source) or source.folder
    files = find_companions(folder, source.reference).files
    return {
        name: path
        for name, path in files.items()
        if _is_code(name) or _matches(name, TOKENIZER_FILES)
    }


def _is_code(name: str) -> bool:
    return name.endswith(".py")


def _names_code(files: Mapping[str, Path]) -> bool:
    """Whether a tokenizer, a processor or a module is of a class that lies in a file beside it."""
    configs = [path for name, path in files.items() if fnmatchcase(name, "[!/]*config.json")]
    if any(isinstance(said, Mapping) and said.get(_CODE) for said in map(_read, configs)):
        return True
    modules = _read(files[MODULES]) if MODULES in files else None
    kinds = [
        str(module.get("type"))
        for module in (modules if isinstance(modules, list) else [])
        if isinstance(module, Mapping)
    ]
    return any(not kind.startswith("sentence_transformers.") for kind in kinds)


def _read(path: Path) -> Any:
    """What a file says that is copied as it is, whatever is wrong with it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _refuse_missing_code(lead: Source, own: Mapping[str, Path]) -> None:
    if lead.config.get("model_type") in CONFIG_MAPPING_NAMES:
        return
    auto_map = lead.config[_CODE]
    classes = auto_map.values() if isinstance(auto_map, Mapping) else [auto_map]
    for named in classes:
        # What has -- in it lies in a repository of the hub, to be fetched by who loads the model.
        module = str(named).rpartition(".")[0].replace(".", "/") + ".py"
        if "--" not in str(named) and module not in own:
            raise SourceError(
                f"{lead.reference}: {module} is missing, which its config.json names in {_CODE}, "
                "so nothing could load the merge; put the model's own code beside it"
            )


def _notes(lead: Source, files: Mapping[str, Path], others: Iterable[Source]) -> Iterable[str]:
    for name in files:
        if name.endswith(".safetensors"):
            yield f"{name} is that of {lead.reference} as it is, not merged"
    for left_out in _left_out(lead):
        yield f"left out: {left_out} of {lead.reference}"
    known = own_files(lead).keys()
    for other in others:
        elsewhere = (*_WRITTEN, *TOKENIZER_FILES)
        more = [
            name
            for name in own_files(other)
            if name not in known and not _is_code(name) and not _matches(name, elsewhere)
        ]
        if more:
            beyond = f" and {len(more) - _SHOWN} more" if len(more) > _SHOWN else ""
            yield (
                f"left out: {', '.join(more[:_SHOWN])}{beyond} of {other.reference}; what lies "
                f"beside the weights is that of {lead.reference}"
            )


def _left_out(source: Source) -> tuple[str, ...]:
    if isinstance(source, AlignedSource):
        return _left_out(source.own)
    if isinstance(source, MergedSource):
        return _left_out(source.lead)
    own = find_companions(source.folder, source.reference).left_out
    return (*own, *_left_out(source.base)) if isinstance(source, Adapter) else own


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
