"""Reads conditions from plain settings, as task files write them.

    conditions:
      - language: ja
      - {length: characters, at_most: 400}
      - {format: json, keys: [name, age]}

An error in the settings is one line.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence

from pydantic import ValidationError

from evomerge.conditions.condition import Condition
from evomerge.conditions.form import FORMATS
from evomerge.conditions.language import Language
from evomerge.conditions.prose import Length
from evomerge.errors import TaskError
from evomerge.problem_words import problem_text

Settings = Mapping[str, object]


def parse_conditions(settings: object) -> tuple[Condition, ...]:
    """The conditions of a list of settings, in its order; a single mapping is a list of one.

    Raises TaskError, with the setting, its value and the mend.
    """
    listed = [settings] if isinstance(settings, Mapping) else settings
    if not isinstance(listed, Sequence) or isinstance(listed, str) or not listed:
        raise TaskError(
            "conditions: expected a list of mappings, each with a language, format or length"
        )
    # lm-eval gives the same settings with every answer, so the parsed conditions are cached.
    return _parse(json.dumps(listed, ensure_ascii=False, default=str))


@functools.lru_cache(maxsize=4096)
def _parse(text: str) -> tuple[Condition, ...]:
    return tuple(
        _parse_one(setting, where=f"conditions[{place}]")
        for place, setting in enumerate(json.loads(text))
    )


def _parse_one(setting: object, *, where: str) -> Condition:
    kinds = _KINDS.keys() & setting.keys() if isinstance(setting, dict) else set()
    if not isinstance(setting, dict) or len(kinds) != 1:
        raise TaskError(
            f"{where}: {setting} is no condition; give a mapping with one of language, format, "
            "length"
        )
    build = _KINDS[kinds.pop()](setting)
    try:
        # As JSON, because strict validation takes a JSON list for a tuple, but not a Python list.
        return build.model_validate_json(json.dumps(setting))
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join((where, *map(str, problem["loc"])))
        raise TaskError(f"{field}: {problem_text(problem)}") from error


def _form(setting: Settings) -> type[Condition]:
    form = FORMATS.get(str(setting["format"]))
    if form is None:
        raise TaskError(
            f"conditions: format {setting['format']} is unknown; use one of {', '.join(FORMATS)}"
        )
    return form


_KINDS: Mapping[str, Callable[[Settings], type[Condition]]] = {
    "language": lambda setting: Language,
    "format": _form,
    "length": lambda setting: Length,
}
