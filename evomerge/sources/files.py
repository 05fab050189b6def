"""The files of a model: where they are, which of them are weights, whether they can be read."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evomerge.documents import DEEPEST, is_deeper
from evomerge.errors import SourceError, one_line
from evomerge.sources.companions import NOT_FETCHED, check_file
from evomerge.sources.header import Entry, read_entries

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

_SHARD = re.compile(
    r"(?P<start>.*?)(?P<number>\d{1,9})-of-(?P<count>\d{1,9})(?P<end>\.safetensors)"
)
_MOST_SHARDS = 10_000
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_HUB_ID = re.compile(r"(?P<id>[\w][\w.-]*/[\w][\w.-]*)(@(?P<revision>[^@]+))?")


def snapshot_download(*given: Any, **options: Any) -> str:
    """The hub's own, imported when a model is fetched."""
    from huggingface_hub import snapshot_download as fetch

    return str(fetch(*given, **options))


def locate(reference: str, named: str) -> tuple[Path, str | None]:
    """The folder of a reference and, for a hub id, the commit it resolved to."""
    # os.path returns False for a name that is too long or of an unknown user; Path would raise.
    path = os.path.expanduser(reference)
    if os.path.isdir(path):
        return Path(path).resolve(), None
    if os.path.exists(path):
        raise SourceError(f"{named}: is a file; give the folder that holds it")
    hub = _HUB_ID.fullmatch(reference)
    if hub is None:
        raise SourceError(
            f"{named}: no such folder; check the path (a hub id is org/name or org/name@revision)"
        )
    try:
        snapshot = snapshot_download(
            hub["id"],
            revision=hub["revision"],
            ignore_patterns=list(NOT_FETCHED),
        )
    except Exception as error:  # the hub's client and its transport may raise anything
        reason = one_line(error).split(". ")[0].rstrip(".")
        raise SourceError(
            f"{named}: no such folder, and the hub does not give it ({reason}); "
            "check the name, or download it first"
        ) from error
    folder = Path(snapshot)
    return folder, folder.name  # the cache names a snapshot by its commit


def read_json(file: Path, named: str) -> Mapping[str, Any]:
    """A file that holds one JSON object. Raises SourceError."""
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(f"{named}: {file.name} cannot be read; get the file again") from error
    if not isinstance(document, dict):
        raise SourceError(f"{named}: {file.name} is not a JSON object; get the file again")
    if is_deeper(document):
        raise SourceError(
            f"{named}: {file.name} is nested more than {DEEPEST} levels deep; get the file again"
        )
    return document


def weight_files(folder: Path, named: str) -> list[Path]:
    """The safetensors files that transformers would load, in order. Raises SourceError."""
    if (folder / SINGLE).exists():
        return [folder / SINGLE]
    if (folder / INDEX).exists():
        return _indexed_files(folder, named)
    if any(folder.glob("pytorch_model*.bin")):
        out = f"{folder}-safetensors"
        raise SourceError(
            f"{named}: has .bin weights, which can run code when read; convert them: "
            'python -c "from transformers import AutoModelForCausalLM as M; '
            f"M.from_pretrained('{folder}', dtype='auto').save_pretrained('{out}'); "
            "from transformers import AutoTokenizer as T; "
            f"T.from_pretrained('{folder}').save_pretrained('{out}')\""
        )
    others = sorted(folder.glob("*.safetensors"))
    if others:
        raise SourceError(f"{named}: {_without_index([file.name for file in others])}")
    pickled = next((file for pattern in _PICKLES for file in sorted(folder.glob(pattern))), None)
    found = f"only {pickled.name}, which can run code when read" if pickled else "no weights"
    raise SourceError(
        f"{named}: has {found}; save the model with transformers' save_pretrained, "
        f"which writes {SINGLE}"
    )


def _without_index(names: Sequence[str]) -> str:
    """The problem where no safetensors file has a name that transformers reads."""
    found = {name: match for name in names if (match := _SHARD.fullmatch(name))}
    if not found:
        return f"has {names[0]}, and transformers reads {SINGLE}; give the file that name"
    totals = sorted({int(match["count"]) for match in found.values()})
    if len(totals) > 1:
        return f"has shards of {totals[0]} and of {totals[-1]}, and no {INDEX}; get the model again"
    missing = _missing_shards(found)
    if missing:
        return (
            f"has {len(found)} of {totals[0]} shards, {missing} and {INDEX} are missing; get them"
        )
    return (
        f"has {len(found)} shards, but {INDEX} is missing, which lists their tensors; get that "
        "file from the source of the shards"
    )


def _missing_shards(names: Iterable[str]) -> str | None:
    """The first shard that is missing from the numbered names."""
    found = {name: match for name in names if (match := _SHARD.fullmatch(name))}
    for match in found.values():
        start, count, end = match["start"], match["count"], match["end"]
        for number in range(1, min(int(count), _MOST_SHARDS) + 1):
            name = f"{start}{number:0{len(match['number'])}d}-of-{count}{end}"
            if name not in found:
                return name
    return None


def _indexed_files(folder: Path, named: str) -> list[Path]:
    weight_map = read_json(folder / INDEX, named).get("weight_map")
    shards = set(weight_map.values()) if isinstance(weight_map, dict) else set()
    if not shards or not all(isinstance(shard, str) for shard in shards):
        raise SourceError(f"{named}: {INDEX} has no weight_map; get the file again")
    outside = next((shard for shard in sorted(shards) if Path(shard).name != shard), None)
    if outside:
        raise SourceError(
            f"{named}: {INDEX} names {outside}, outside its folder; get the file again"
        )
    files = [folder / shard for shard in sorted(shards)]
    missing = next((file for file in files if not file.exists()), None)
    if missing:
        raise SourceError(
            f"{named}: {missing.name} is missing, which {INDEX} names; get the file again"
        )
    unnamed = _missing_shards(shards)
    if unnamed:
        raise SourceError(
            f"{named}: {INDEX} names other shards and not {unnamed}; get both from the same place"
        )
    return files


def read_weights(folder: Path, named: str) -> dict[str, Entry]:
    """Tensor name -> its entry, over all files that transformers would load, in order.

    Raises SourceError.
    """
    found: dict[str, Entry] = {}
    files = weight_files(folder, named)
    for file in files:
        check_file(file, named)  # weights may be kept elsewhere and linked
        for name, entry in read_entries(file, named).items():
            if name in found:
                raise SourceError(
                    f"{named}: {name} is in {found[name].file.name} and in {file.name}; get the "
                    "model again"
                )
            found[name] = entry
    if files[0].name != SINGLE:
        _check_index(folder, found, named)
    return found


def _check_index(folder: Path, found: Mapping[str, Entry], named: str) -> None:
    """Raise SourceError unless every tensor is in the shard that the index names."""
    for name, shard in read_json(folder / INDEX, named)["weight_map"].items():
        if name not in found or found[name].file.name != shard:
            raise SourceError(
                f"{named}: {INDEX} says that {name} is in {shard}, which does not hold it; get "
                "both from the same place"
            )
