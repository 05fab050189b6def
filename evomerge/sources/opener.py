"""Opening a model by its reference: a checkpoint, or an adapter over one."""

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

    A reference that exists as a folder is that folder. A folder with a PEFT adapter is opened over
    `base`, else over the model that the adapter itself names; `MODEL+ADAPTER`, as mergekit writes
    it, names both, and either may have a + in its path. `where` names the field that holds the
    reference, for messages. Raises SourceError in one line.
    """
    named = f"{where}: {reference}"
    model, adapter = _split(reference)
    if model and adapter and not os.path.exists(os.path.expanduser(reference)):
        opened = _open(adapter, named, open_source(model, where=where), reference)
        if not isinstance(opened, Adapter):
            raise SourceError(f"{named}: {adapter} is no adapter; give MODEL+ADAPTER, or one model")
        return opened
    return _open(reference, named, base, reference)


def _split(reference: str) -> tuple[str, str]:
    """MODEL and ADAPTER: at the first + between two folders, else where a folder follows.

    The model may be on the hub; at the last + where neither is so.
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
    find_companions(folder, named)  # refuses what is no file of its own before one is read
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
    """The model that an adapter says it was trained on."""
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
            f"(a path in {ADAPTER_CONFIG} counts from the working folder), or write MODEL+ADAPTER"
        ) from error
