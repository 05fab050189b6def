"""Opens a model by its reference: a checkpoint, or an adapter over a checkpoint."""

from __future__ import annotations

import os

from evomerge.errors import SourceError
from evomerge.sources.adapter import Adapter
from evomerge.sources.checkpoint import Checkpoint
from evomerge.sources.companions import find_companions
from evomerge.sources.files import INDEX, SINGLE, locate
from evomerge.sources.lora import ADAPTER_CONFIG, AdapterConfig, read_adapter_config
from evomerge.sources.source import Source


def open_source(reference: str, *, where: str, base: Source | None = None) -> Source:
    """Open a local folder or a hub id (`org/name`, `org/name@revision`).

    If a folder with the name of the reference exists, it is used. A folder with a PEFT adapter is
    opened over `base`, else over the model that the adapter itself names. `MODEL+ADAPTER`, as in
    mergekit, names both; either may have a + in its path. where: the field that holds the
    reference, for messages. Raises SourceError in one line.
    """
    named = f"{where}: {reference}"
    model, adapter = _split(reference)
    if model and adapter and not os.path.exists(os.path.expanduser(reference)):
        opened = _open(adapter, named, open_source(model, where=where), reference)
        if not isinstance(opened, Adapter):
            raise SourceError(
                f"{named}: {adapter} is not an adapter; give MODEL+ADAPTER, or one model"
            )
        return opened
    return _open(reference, named, base, reference)


def _split(reference: str) -> tuple[str, str]:
    """MODEL and ADAPTER: split at the first + between two folders, else before a folder.

    In the second case the model may be on the hub. Otherwise it is split at the last +.
    """
    places = [place for place, sign in enumerate(reference) if sign == "+"]
    splits = [(reference[:place], reference[place + 1 :]) for place in places]
    onto_folders = [split for split in splits if all(split) and _is_folder(split[1])]
    of_folders = [split for split in onto_folders if _is_folder(split[0])]
    last, _, rest = reference.rpartition("+")
    return next(iter([*of_folders, *onto_folders]), (last, rest))


def _is_folder(path: str) -> bool:
    return os.path.isdir(os.path.expanduser(path))


def _open(reference: str, named: str, base: Source | None, full: str) -> Source:
    folder, revision = locate(reference, named)
    find_companions(folder, named)  # refuses links and other non-files before any file is read
    whole = (folder / SINGLE).exists() or (folder / INDEX).exists()
    if whole or not (folder / ADAPTER_CONFIG).exists():
        return Checkpoint(folder, reference=full, revision=revision, named=named)
    config = read_adapter_config(folder, named)
    over = base or _base_of(config, named)
    if isinstance(over, Adapter):
        raise SourceError(
            f"{named}: is an adapter over the adapter {over.reference}; merge that one into its "
            "base first"
        )
    return Adapter(folder, reference=full, revision=revision, config=config, base=over, named=named)


def _base_of(config: AdapterConfig, named: str) -> Source:
    """The model that an adapter names as its base."""
    if config.base is None:
        raise SourceError(
            f"{named}: its {ADAPTER_CONFIG} names no base_model_name_or_path; "
            "write MODEL+ADAPTER, or give the base beside it"
        )
    try:
        return open_source(config.base, where="base_model_name_or_path")
    except SourceError as error:
        raise SourceError(
            f"{named}: is an adapter whose base cannot be opened: {error} "
            f"(a path in {ADAPTER_CONFIG} starts at the working folder), or write MODEL+ADAPTER"
        ) from error
