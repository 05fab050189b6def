"""Safe reading of YAML that users write, and safe Markdown from other people's text.

A document is untrusted. Its size, its depth, and the values that its aliases repeat are limited
before anything is built. Only plain values are built: texts, numbers, switches, lists, and mappings
with texts as keys.
"""

from __future__ import annotations

import contextlib
import difflib
import math
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import yaml

from evomerge.errors import InputError, one_line

_LARGEST_BYTES = 2 * 2**20
_LARGEST_TEXT = f"{_LARGEST_BYTES // 2**20} MiB"
_MOST_VALUES = 100_000
"""Values of a document, counting each as often as aliases repeat it."""
DEEPEST = 64
"""Levels of nested lists and mappings, also through aliases."""
TOO_DEEP = f"lists and mappings are nested more than {DEEPEST} levels deep; write it flatter"

# The C loader reads the same documents some ten times faster, where PyYAML was built with it.
_BaseLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def load_text(path: Path, *, kind: str, error: type[InputError]) -> str:
    """The text of a document; `kind` names it ("a job"). Raises `error` in one line."""
    content = load_bytes(path, kind=kind, limit_bytes=_LARGEST_BYTES, error=error)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as cause:
        raise error(f"{path}: not UTF-8 text; {kind} is a YAML file") from cause


def load_bytes(
    path: Path, *, kind: str, limit_bytes: int | None = None, error: type[InputError]
) -> bytes:
    """The content of a regular file of at most `limit_bytes`; it never waits for a pipe.

    kind: the file's name in messages ("a job"). Raises `error` in one line.
    """
    try:
        # Without O_NONBLOCK, opening a pipe would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as file:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode):
                raise error(f"{path}: not a regular file; give the file of {kind}")
            if limit_bytes is None:
                return file.read()
            content = file.read(limit_bytes + 1) if facts.st_size <= limit_bytes else b""
    except OSError as cause:
        if isinstance(cause, IsADirectoryError):
            raise error(f"{path}: is a folder; give the file of {kind}") from cause
        raise error(f"{path}: cannot be read ({cause.strerror}); check the path") from cause
    except ValueError as cause:  # a NUL in the path
        raise error(f"{path}: cannot be read ({cause}); check the path") from cause
    if max(len(content), facts.st_size) > limit_bytes:
        raise error(
            f"{path}: larger than {limit_bytes / 2**20:g} MiB, the limit for {kind}; check that it "
            "is the right file"
        )
    return content


def parse_mapping(
    text: str, *, where: str, expected: str, error: type[InputError]
) -> dict[str, Any]:
    """A document that is a mapping with the `expected` keys. Raises `error` in one line."""
    [document, *others] = _documents(text, where, error) or [None]
    if others:
        raise error(f"{where}: holds several documents; write one, with {expected}")
    if not isinstance(document, dict):
        raise error(f"{where}: expected a mapping with {expected}")
    return document


def parse_mappings(
    text: str, *, where: str, expected: str, error: type[InputError]
) -> list[dict[str, Any]]:
    """One document or several, each a mapping with the `expected` keys; empty ones are left out.

    Raises `error` in one line.
    """
    documents = [document for document in _documents(text, where, error) if document is not None]
    if not documents or not all(isinstance(document, dict) for document in documents):
        raise error(f"{where}: expected a mapping with {expected}")
    return documents


def parse_value(text: str, *, where: str, error: type[InputError]) -> Any:
    """One value of any kind, None where there is none. Raises `error` in one line."""
    [value, *others] = _documents(text, where, error) or [None]
    if others:
        raise error(f"{where}: holds several documents; write one value")
    return value


def check_bounds(text: str, *, where: str, error: type[InputError]) -> None:
    """Refuse YAML that is too large, too deep, or has too many aliases, before it is built.

    This is for files that other libraries read: they check tags, keys and the syntax themselves.
    """
    with contextlib.suppress(yaml.YAMLError):
        _check_bounds(text, where, error)


def _documents(text: str, where: str, error: type[InputError]) -> list[Any]:
    try:
        _check_bounds(text, where, error)
        return list(yaml.load_all(text, _PlainLoader))
    except _NotPlainError as cause:
        raise error(f"{where}: {cause}") from cause
    except yaml.YAMLError as cause:
        problem = one_line(cause).replace(' in "<unicode string>",', ",")
        raise error(
            f"{where}: not YAML ({problem}); check the indentation and the quotes"
        ) from cause


def _check_bounds(text: str, where: str, error: type[InputError]) -> None:
    """Check the limits on the events of a document; nothing is built, so memory stays small."""
    if len(text) > _LARGEST_BYTES:
        raise error(f"{where}: longer than {_LARGEST_TEXT}; check that it is the right file")
    # For every open list or mapping: its anchor, the values before it, the depth below it.
    outer: list[tuple[str | None, int, int]] = []
    anchored: dict[str, tuple[int, int]] = {}
    values = depth = 0
    for event in _events(text, where, error):
        if isinstance(event, yaml.CollectionStartEvent):
            outer.append((event.anchor, values, 0))
            values += 1
            depth = len(outer)
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before, height = outer.pop()
            if anchor is not None:
                anchored[anchor] = values - before, height + 1
            depth = _raise_height(outer, height + 1)
        elif isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _, _ in outer):
                raise error(
                    f"{where}: line {_line(event)}: *{event.anchor} is inside its own value; write "
                    "the value out"
                )
            repeated, height = anchored.get(str(event.anchor), (1, 0))
            values += repeated
            depth = _raise_height(outer, height)
        elif isinstance(event, yaml.ScalarEvent):
            values += 1
            if event.anchor is not None:
                anchored[event.anchor] = 1, 0
        elif isinstance(event, yaml.DocumentStartEvent):
            values += 1
        if depth > DEEPEST:
            raise error(f"{where}: line {_line(event)}: {TOO_DEEP}")
        if values > _MOST_VALUES:
            raise error(
                f"{where}: line {_line(event)}: more than {_MOST_VALUES:,} values, with those that "
                "aliases repeat; write less"
            )


def _events(text: str, where: str, error: type[InputError]) -> Iterator[yaml.Event]:
    try:
        yield from yaml.parse(text, _BaseLoader)
    except yaml.MarkedYAMLError as cause:
        # The C parser has a limit of its own, and looks further ahead than it tells.
        if "nesting depth" not in f"{cause.context} {cause.problem}":
            raise
        mark = cause.problem_mark or cause.context_mark
        line = f"line {mark.line + 1}: " if mark is not None else ""
        raise error(f"{where}: {line}{TOO_DEEP}") from cause


def is_deeper(value: object, levels: int = DEEPEST) -> bool:
    """Whether lists and mappings are nested more than so many levels deep in a value of JSON.

    What reads JSON takes many more levels than Python's own functions can follow.
    """
    waiting = [(value, 1)]
    while waiting:
        part, level = waiting.pop()
        if isinstance(part, Mapping):
            part = list(part.values())
        if isinstance(part, list | tuple):
            if level > levels:
                return True
            waiting.extend((each, level + 1) for each in part)
    return False


def _raise_height(outer: list[tuple[str | None, int, int]], height: int) -> int:
    """Note the height below the innermost open part; return its depth from the top."""
    if outer:
        anchor, before, deepest = outer[-1]
        outer[-1] = anchor, before, max(deepest, height)
    return len(outer) + height


def _line(part: yaml.Event | yaml.Node) -> int:
    assert part.start_mark is not None
    return int(part.start_mark.line) + 1


class _NotPlainError(Exception):
    """A value of YAML that a document here may not have."""


_TAGS = "tag:yaml.org,2002:"


class _PlainLoader(_BaseLoader):  # type: ignore[misc, valid-type]
    """Builds only plain values; each key of a mapping is a text and occurs once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[str, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if key.tag == f"{_TAGS}merge":
                continue
            if not isinstance(key, yaml.ScalarNode) or key.tag not in _TEXT_TAGS:
                written = key.value if isinstance(key, yaml.ScalarNode) else "[...] or {...}"
                raise _NotPlainError(
                    f"line {_line(key)}: the key {_shown(written)} is no text; write it in quotes"
                )
            if key.value in lines:
                raise _NotPlainError(
                    f"{_shown(key.value)} stands twice, in line {lines[key.value]} and in line "
                    f"{_line(key)}; keep one of them"
                )
            lines[key.value] = _line(key)
        built: dict[str, Any] = super().construct_mapping(node, deep=deep)
        return built


def _whole_number(loader: Any, node: yaml.Node) -> int:
    written = str(_scalar(node, "a whole number"))
    if ":" in written:
        _refuse(node, written, "a number in base 60 to YAML", "write it in quotes, or as 90")
    try:
        number = int(loader.construct_yaml_int(node))
    except (ValueError, IndexError):  # for example 0x, or more digits than Python reads
        _refuse(node, written, "no whole number that can be read", "mend it, or write it in quotes")
    if abs(number) >= 2**63:
        _refuse(node, written, "a whole number of more than 64 bits", "write a smaller one")
    return number


def _number(loader: Any, node: yaml.Node) -> float:
    written = str(_scalar(node, "a number"))
    if ":" in written:
        _refuse(node, written, "a number in base 60 to YAML", "write it in quotes, or as 90.0")
    try:
        number = float(loader.construct_yaml_float(node))
    except (ValueError, IndexError):
        _refuse(node, written, "no number that can be read", "mend it, or write it in quotes")
    if not math.isfinite(number):
        _refuse(node, written, "no finite number", "write one")
    return number


def _switch(loader: Any, node: yaml.Node) -> bool:
    written = str(_scalar(node, "a switch"))
    try:
        return bool(loader.construct_yaml_bool(node))
    except KeyError:
        _refuse(node, written, "neither true nor false", "write one of them")


def _date(loader: Any, node: yaml.Node) -> str:
    """A date stays text, as it is written."""
    written = str(_scalar(node, "a date"))
    try:
        loader.construct_yaml_timestamp(node)
    except (ValueError, AttributeError, OverflowError):
        _refuse(node, written, "not an existing date", "mend it, or write it in quotes")
    return written


def _text(_loader: Any, node: yaml.Node) -> str:
    return str(_scalar(node, "a text"))


def _list(loader: Any, node: yaml.Node) -> list[Any]:
    if not isinstance(node, yaml.SequenceNode):
        _refuse(node, "!!seq", "not before a list", "remove it")
    return [loader.construct_object(item, deep=True) for item in node.value]


def _mapping(loader: Any, node: yaml.Node) -> dict[str, Any]:
    if not isinstance(node, yaml.MappingNode):
        _refuse(node, "!!map", "not before a mapping", "remove it")
    built: dict[str, Any] = loader.construct_mapping(node, deep=True)
    return built


def _unknown(_loader: Any, node: yaml.Node) -> NoReturn:
    tag = node.tag.replace(_TAGS, "!!")
    _refuse(node, tag, "a tag that is not read here", "write plain YAML")


def _scalar(node: yaml.Node, what: str) -> object:
    if not isinstance(node, yaml.ScalarNode):
        _refuse(node, node.tag.replace(_TAGS, "!!"), f"the tag of {what}", "remove it")
    return node.value


def _refuse(node: yaml.Node, written: str, what: str, mend: str) -> NoReturn:
    raise _NotPlainError(f"line {_line(node)}: {_shown(written)} is {what}; {mend}")


def _shown(written: str, most: int = 40) -> str:
    shown = written if len(written) <= most else f"{written[:most]}..."
    return shown or "nothing"


_TEXT_TAGS = frozenset({f"{_TAGS}str", f"{_TAGS}value", f"{_TAGS}timestamp"})
_BUILT_BY = {
    "int": _whole_number,
    "float": _number,
    "bool": _switch,
    "timestamp": _date,
    "str": _text,
    "value": _text,  # a lone =
    "seq": _list,
    "map": _mapping,
    None: _unknown,
}
_PlainLoader.yaml_constructors = {
    f"{_TAGS}null": _PlainLoader.yaml_constructors[f"{_TAGS}null"],
    **{name and f"{_TAGS}{name}": build for name, build in _BUILT_BY.items()},
}


def nearest(name: object, known: Iterable[str]) -> str:
    """A mend for an unknown name: the closest known name, or all of them."""
    known = list(known)
    close = difflib.get_close_matches(str(name), known, n=1)
    return f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"


# Other people's text in Markdown: names, labels and reasons, without any markup of their own.


_SHAPING = re.compile(r"!(?=\[)|(?<=\])[(\[]|[`|]")
"""Characters that begin a picture, the target of a link, code, or the next cell of a table."""


def plain(text: object) -> str:
    """The text on one line, without any tag, link, picture or table cell."""
    line = one_line(text).replace("<", "&lt;")
    return _SHAPING.sub(lambda sign: f"\\{sign[0]}", line)


def code(text: object) -> str:
    """The text on one line as code, whatever characters it has."""
    line = one_line(text)
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence} {line} {fence}" if longest else f"{fence}{line}{fence}"
