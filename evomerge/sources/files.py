"""The files of a model: where they lie, which of them are weights, what their headers say."""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download

from evomerge.errors import SourceError, one_line
from evomerge.sources.companions import NOT_FETCHED

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_HUB_ID = re.compile(r"(?P<id>[\w][\w.-]*/[\w][\w.-]*)(@(?P<revision>[^@]+))?")
_LARGEST_HEADER_BYTES = 100_000_000  # the format's own limit
_DTYPES: Mapping[str, str] = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}
"""The format's names of dtypes -> torch's."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor as its file's header tells of it. start: of its bytes, from the file's beginning."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    size_bytes: int


def locate(reference: str, named: str) -> tuple[Path, str | None]:
    """The folder of a reference and, for a hub id, the commit it resolved to."""
    path = Path(reference).expanduser()
    if path.is_dir():
        return path.resolve(), None
    if path.exists():
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
    except Exception as error:  # whatever the hub's client and its transport raise
        reason = one_line(error).split(". ")[0].rstrip(".")
        raise SourceError(
            f"{named}: no such folder, and not to be had from the hub ({reason}); "
            "check the name, or download it first"
        ) from error
    folder = Path(snapshot)
    return folder, folder.name  # the cache names a snapshot by its commit


def read_json(file: Path, named: str) -> Mapping[str, Any]:
    """A file that holds one JSON object. Raises SourceError."""
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError(f"{named}: {file.name} cannot be read; get the file again") from error
    if not isinstance(document, dict):
        raise SourceError(f"{named}: {file.name} is not a JSON object; get the file again")
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
    pickled = next((file for pattern in _PICKLES for file in sorted(folder.glob(pattern))), None)
    found = f"only {pickled.name}, which can run code when read" if pickled else "no weights"
    raise SourceError(
        f"{named}: has {found}; save the model with transformers' save_pretrained, "
        f"which writes {SINGLE}"
    )


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
    return files


def read_entries(file: Path, named: str) -> dict[str, Entry]:
    """Tensor name -> what the header of a safetensors file says of it, in the order of the data.

    The header is an 8-byte little-endian length and that much JSON; the data follow, without gaps.
    Raises SourceError for a file that is damaged.
    """
    damaged = SourceError(f"{named}: {file.name} is empty, cut short or damaged; get it again")
    try:
        size_bytes = file.stat().st_size
        with file.open("rb") as stream:
            (header_bytes,) = struct.unpack("<Q", stream.read(8))
            if header_bytes > min(size_bytes - 8, _LARGEST_HEADER_BYTES):
                raise damaged
            header = json.loads(stream.read(header_bytes))
        header.pop("__metadata__", None)
        first = 8 + header_bytes
        entries = {
            name: Entry(
                file=file,
                dtype=_DTYPES.get(entry["dtype"], entry["dtype"]),
                shape=tuple(entry["shape"]),
                start=first + entry["data_offsets"][0],
                size_bytes=entry["data_offsets"][1] - entry["data_offsets"][0],
            )
            for name, entry in sorted(
                header.items(), key=lambda item: tuple(item[1]["data_offsets"])
            )
        }
        last = list(entries.values())[-1]
    except (OSError, ValueError, struct.error, LookupError, AttributeError, TypeError) as error:
        raise damaged from error
    if size_bytes != last.start + last.size_bytes:
        raise damaged
    return entries


def read_ahead(entry: Entry) -> None:
    """Ask the system to read a tensor's bytes into its cache; returns at once."""
    if not hasattr(os, "posix_fadvise"):  # not on macOS, whose own reading ahead must do
        return
    descriptor = os.open(entry.file, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, entry.start, entry.size_bytes, os.POSIX_FADV_WILLNEED)
    finally:
        os.close(descriptor)


class Digests:
    """Hashes of files; one that did not change since is not read again."""

    def __init__(self) -> None:
        self._known: dict[tuple[Path, int, int], str] = {}

    def of(self, files: Mapping[str, Path]) -> dict[str, str]:
        """Name -> sha256 in hexadecimal; files are read in parallel. Raises SourceError."""
        with ThreadPoolExecutor() as threads:
            return dict(zip(files, threads.map(self._digest, files.values()), strict=True))

    def _digest(self, path: Path) -> str:
        try:
            facts = path.stat()
            key = path, facts.st_size, facts.st_mtime_ns
            if key not in self._known:
                with path.open("rb") as stream:
                    self._known[key] = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise SourceError(f"{path}: cannot be read ({error.strerror}); get it again") from error
        return self._known[key]
