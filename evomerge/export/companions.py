"""The files beside the weights of a merged checkpoint, copied from the leading model.

Code is copied only if a file of the result names it, and is never run here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from evomerge.errors import SourceError
from evomerge.merge import MergedSource
from evomerge.sources import MODULES, Adapter, Source, find_companions
from evomerge.vocabulary import GENERATION_CONFIG, TOKENIZER_FILES, AlignedSource, tokenizer_folder

_CODE = "auto_map"
"""Key of a configuration that names the model's own code: class of transformers -> MODULE.CLASS."""

_WRITTEN = ("config.json", GENERATION_CONFIG, "*.index.json", "adapter_*")
"""Files that are written for each merge, or mean nothing in it."""

_SHOWN = 3
"""Most files that a note names."""


@dataclass(frozen=True, kw_only=True)
class Beside:
    """What is copied into a merged checkpoint.

    files: path in the checkpoint -> the file. config: of the leading model. code: whether the
    config names code in the checkpoint, which a user must then trust. notes: a sentence for each
    thing that was left out or is not merged.
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
    """Find the files beside a merge's weights, from its leading model and its tokenizer's model.

    others: the other merged models; nothing of them is copied. Raises SourceError if the model's
    own code is needed and missing.
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
    """Whether the result's config.json names the model's own code.

    It does not if transformers has code for the model and the user did not trust the model's own.
    """
    return bool(config.get(_CODE)) and (trust_remote_code or not _is_known(config))


def _is_known(config: Mapping[str, Any]) -> bool:
    """Whether transformers has code for the model."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    return config.get("model_type") in CONFIG_MAPPING_NAMES


def own_files(source: Source) -> Mapping[str, Path]:
    """The files beside the weights of a source; for an adapter its base's, and its own beside them.

    An aligned source has those of its own model, a merged source those of its leading model.
    """
    if isinstance(source, AlignedSource):
        return own_files(source.own)
    if isinstance(source, MergedSource):
        return own_files(source.lead)
    files = find_companions(source.folder, source.reference).files
    return {**files, **own_files(source.base)} if isinstance(source, Adapter) else files


def _tokenizer_files(source: Source) -> Mapping[str, Path]:
    """The files of a tokenizer and its code; an adapter without a tokenizer has its base's.

    There are none if transformers writes the tokenizer out.
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
    """Whether the class of a tokenizer, a processor or a module is in a file beside it."""
    configs = [path for name, path in files.items() if fnmatchcase(name, "[!/]*config.json")]
    if any(isinstance(config, Mapping) and config.get(_CODE) for config in map(_read, configs)):
        return True
    modules = _read(files[MODULES]) if MODULES in files else None
    kinds = [
        str(module.get("type"))
        for module in (modules if isinstance(modules, list) else [])
        if isinstance(module, Mapping)
    ]
    return any(not kind.startswith("sentence_transformers.") for kind in kinds)


def _read(path: Path) -> Any:
    """The document in a file; None if it cannot be read, because the file is copied anyway."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _refuse_missing_code(lead: Source, own: Mapping[str, Path]) -> None:
    if _is_known(lead.config):
        return
    auto_map = lead.config[_CODE]
    classes = auto_map.values() if isinstance(auto_map, Mapping) else [auto_map]
    for named in classes:
        # A name with -- is in a repository of the hub; whoever loads the model fetches it.
        module = str(named).rpartition(".")[0].replace(".", "/") + ".py"
        if "--" not in str(named) and module not in own:
            raise SourceError(
                f"{lead.reference}: {module} is missing, but its config.json names it in {_CODE}; "
                "without it the merge cannot be loaded; put the model's own code beside it"
            )


def _notes(lead: Source, files: Mapping[str, Path], others: Iterable[Source]) -> Iterable[str]:
    for name in files:
        if name.endswith(".safetensors"):
            yield f"{name} is copied from {lead.reference}, not merged"
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
                f"left out: {', '.join(more[:_SHOWN])}{beyond} of {other.reference}; the files "
                f"beside the weights are those of {lead.reference}"
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
