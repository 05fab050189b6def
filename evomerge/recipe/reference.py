"""How recipes name models: a folder or a hub id, `@revision` and `+adapter` allowed after it."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator


def _as_text(written: object) -> object:
    """The long form that mergekit writes for a path with a space, as the short one."""
    if not isinstance(written, Mapping) or "model" not in written:
        return written
    odd = next((key for key in written if key not in ("model", "lora")), None)
    if odd is not None:
        raise ValueError(f"{odd} is not supported; name the model alone")
    parts = [written["model"], *([written["lora"]] if written.get("lora") else [])]
    return "+".join(_path_as_text(part) for part in parts)


def _path_as_text(written: object) -> str:
    if isinstance(written, Mapping):
        revision = written.get("revision")
        return f"{written.get('path')}@{revision}" if revision else str(written.get("path"))
    return str(written)


def _without_control_characters(written: str) -> str:
    if any(unicodedata.category(sign) in ("Cc", "Zl", "Zp") for sign in written):
        raise ValueError(
            "has a line break or another control character, which no model's name may have; rename "
            "the folder"
        )
    return written


PlainName = Annotated[str, AfterValidator(_without_control_characters)]
"""The name of a model as it is written: a folder or a hub id."""

Reference = Annotated[PlainName, BeforeValidator(_as_text)]
"""The field of a recipe that names a model."""
