"""The sources of a merge, with names and facts that may be published.

A source is named by its hub id or by the name of its folder, never by a path of this machine. Its
files are given by hash; its licence and languages come from its own model card.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from evomerge.sources import Source


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """A file as a manifest lists it."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Licence:
    """A licence as a model card states it; `name` and `link` belong to the licence "other"."""

    license: str
    name: str | None = None
    link: str | None = None

    def __str__(self) -> str:
        return self.name or self.license


@dataclass(frozen=True, kw_only=True)
class Origin:
    """One source of a merge.

    reference: its name in recipes, perhaps a path. name: its public name. revision: the commit of
    a hub id. licence: None if the source's card states none.
    """

    reference: str
    name: str
    revision: str | None
    files: Mapping[str, FileFacts]
    licence: Licence | None
    languages: tuple[str, ...]


def public_names(sources: Iterable[Source]) -> dict[str, str]:
    """reference -> public name; no name is used twice."""
    names: dict[str, str] = {}
    for source in sources:
        names[source.reference] = _public_name(source, set(names.values()))
    return names


def trace(sources: Iterable[Source], names: Mapping[str, str]) -> tuple[Origin, ...]:
    """The origin of each source, in order. It reads every byte of them. Raises SourceError."""
    return tuple(_trace(source, names[source.reference]) for source in sources)


def _trace(source: Source, name: str) -> Origin:
    metadata = _card_metadata(source.folder / "README.md")
    return Origin(
        reference=source.reference,
        name=name,
        revision=source.revision,
        files={
            file: FileFacts(sha256=digest, size_bytes=source.files[file].stat().st_size)
            for file, digest in source.sha256().items()
        },
        licence=_licence(metadata),
        languages=_languages(metadata),
    )


def common_licence(origins: Iterable[Origin]) -> Licence | None:
    """The licence that every source states; None when they differ or one states none."""
    stated = {origin.licence for origin in origins}
    return stated.pop() if len(stated) == 1 else None


def all_languages(origins: Iterable[Origin]) -> tuple[str, ...]:
    """The languages of all the sources, each once."""
    return tuple(dict.fromkeys(code for origin in origins for code in origin.languages))


def _public_name(source: Source, taken: set[str]) -> str:
    if source.revision is not None:
        hub_id = source.reference.partition("@")[0]
        return f"{hub_id}@{source.revision[:7]}" if hub_id in taken else hub_id
    name = source.folder.name
    count = 1
    while name in taken:
        count += 1
        name = f"{source.folder.name}-{count}"
    return name


_METADATA = re.compile(r"^\s*---(?:\r\n|\r|\n)([\S\s]*?)(?:\r\n|\r|\n)---[ \t]*(?:\r\n|\n|$)")
"""The block at the start of a model card, as the hub's own library finds it."""


def _card_metadata(path: Path) -> Mapping[str, Any]:
    """The metadata of a model card; nothing for a card that is missing or cannot be read."""
    if not path.is_file():
        return {}
    try:
        block = _METADATA.search(path.read_text(encoding="utf-8-sig"))
        metadata = yaml.safe_load(block.group(1)) if block else None
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return metadata if isinstance(metadata, dict) else {}


def _licence(metadata: Mapping[str, Any]) -> Licence | None:
    stated = metadata.get("license")
    if isinstance(stated, list) and len(stated) == 1:
        stated = stated[0]
    if not isinstance(stated, str) or not stated.strip():
        return None
    name, link = metadata.get("license_name"), metadata.get("license_link")
    return Licence(
        license=stated.strip().lower(),
        name=name if isinstance(name, str) else None,
        link=link if isinstance(link, str) else None,
    )


def _languages(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    stated = metadata.get("language")
    codes = stated if isinstance(stated, list) else [stated]
    # YAML 1.1 reads an unquoted `no`, Norwegian, as false.
    return tuple("no" if code is False else str(code) for code in codes if code is not None)
