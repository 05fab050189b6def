"""Documents of users: bounded, plain, and each key once; anything else is one line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from evomerge.documents import (
    check_bounds,
    is_deeper,
    load_bytes,
    load_text,
    parse_mapping,
    parse_value,
)
from evomerge.errors import JobError


def parse(text: str) -> dict[str, Any]:
    return parse_mapping(text, where="FILE", expected="name", error=JobError)


def refusal(text: str) -> str:
    with pytest.raises(JobError) as raised:
        parse(text)
    assert len(str(raised.value).splitlines()) == 1
    assert str(raised.value).startswith("FILE: ")
    return str(raised.value)


def laughs(levels: int) -> str:
    lines = ["a0: &a0 [lol]"]
    for level in range(1, levels + 1):
        repeated = ", ".join([f"*a{level - 1}"] * 9)
        lines.append(f"a{level}: &a{level} [{repeated}]")
    return "\n".join(lines)


@pytest.mark.parametrize("text", ["a: " + "[" * 200_000, "{a: " * 100_000, "- " * 100_000])
def test_what_is_too_deep_is_refused_before_it_is_built(text: str) -> None:
    assert "nested more than 64 levels deep" in refusal(text)


def test_the_depth_of_a_value_is_bounded_too() -> None:
    value: Any = []
    for _ in range(63):
        value = [1, {"a": value}] if isinstance(value, list) else (value,)
    assert not is_deeper(value, 127)
    assert is_deeper(value, 126)
    assert not is_deeper([[1], {"a": "text"}], 2)
    assert not is_deeper("text", 0)


def test_depth_counts_through_aliases() -> None:
    halves = "a: &a " + "[" * 40 + "]" * 40 + "\nb: " + "[" * 40 + "*a" + "]" * 40
    assert "nested more than 64 levels deep" in refusal(halves)


def test_what_aliases_amount_to_is_bounded() -> None:
    assert "more than 100,000 values" in refusal(laughs(9))
    assert parse(laughs(2))["a2"][0] == [["lol"]] * 9


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {b: [1, {c: *a}]}", "a: &a {<<: *a}"])
def test_an_alias_within_itself_is_refused(text: str) -> None:
    assert "line 1: *a is inside its own value" in refusal(text)


@pytest.mark.parametrize(
    "text", ["a: 1\nb: 2\na: 3", 'a: 1\n\n"a": 3', "a: 1\n? a\n: 2", "a: 1\n!!str a : 2"]
)
def test_a_key_that_stands_twice_is_refused_with_both_lines(text: str) -> None:
    assert "a stands twice, in line 1 and in line" in refusal(text)


def test_a_key_beside_a_merge_key_replaces_what_is_merged() -> None:
    assert parse("a: &a {x: 1, y: 1}\nb: {<<: *a, x: 2}")["b"] == {"x": 2, "y": 1}


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("2026-02-31", "not an existing date"),
        ("!!timestamp soon", "not an existing date"),
        ("9" * 5000, "no whole number"),
        ("9" * 30, "64 bits"),
        ("0x" + "f" * 30, "64 bits"),
        ("!!int abc", "no whole number"),
        ('!!int ""', "no whole number"),
        ("!!float abc", "no number"),
        ("!!bool maybe", "neither true nor false"),
        ("1:30", "base 60"),
        ("1:30.5", "base 60"),
        (".inf", "no finite number"),
        (".nan", "no finite number"),
        ("1.0e+999", "no finite number"),
        ("!!binary aGk=", "a tag that is not read here"),
        ("!!set {b, c}", "a tag that is not read here"),
        ("!!python/object:os.system x", "a tag that is not read here"),
        ("!own x", "a tag that is not read here"),
        ("!!str [1]", "the tag of a text"),
        ("!!int {x: 1}", "the tag of a whole number"),
        ("!!seq x", "not before a list"),
        ("!!map [x]", "not before a mapping"),
        ("{<<: 3}", "not YAML"),
        ("*nothing", "not YAML"),
        ("\x00", "not YAML"),
        ("[1", "not YAML"),
    ],
)
def test_a_value_that_cannot_be_is_one_line_that_names_its_line(written: str, said: str) -> None:
    message = refusal(f"ok: 1\na: {written}")
    assert said in message
    assert "line 2" in message or "not YAML" in message


@pytest.mark.parametrize("key", ["1", "null", "no", "1.5", "[a]", "{}", "? [a, b]\n"])
def test_a_key_that_is_no_text_is_refused(key: str) -> None:
    assert "is no text; write it in quotes" in refusal(f"{key}: 1")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 2026-02-21", "2026-02-21"),
        ("a: 2026-02-21 10:00:00", "2026-02-21 10:00:00"),
        ("a: =", "="),
        ('a: "\\0"', "\0"),
        ("a: 0x1F", 31),
        ("a: 1_000", 1000),
        ("a: yes", True),
        ("a: 1e-3", "1e-3"),
        ("a: 1.0e-3", 1e-3),
        ("a:", None),
        ("\ufeffa: 1", 1),
        ("2026-02-21: 1\na: 1", 1),
    ],
)
def test_plain_values_are_read_as_yaml_has_them_and_dates_as_texts(
    text: str, value: object
) -> None:
    assert parse(text)["a"] == value


@pytest.mark.parametrize("text", ["", "# nothing", "[1]", "text", "a: 1\n---\nb: 2"])
def test_one_mapping_is_expected(text: str) -> None:
    assert refusal(text).endswith(("a mapping with name", "write one, with name"))


def test_a_value_is_bounded_too() -> None:
    assert parse_value("[a, 1]", where="--set", error=JobError) == ["a", 1]
    assert parse_value("", where="--set", error=JobError) is None
    with pytest.raises(JobError, match="nested more than 64 levels deep"):
        parse_value("[" * 5000, where="--set", error=JobError)


def test_a_large_file_is_refused_unread(tmp_path: Path) -> None:
    large = tmp_path / "large.yaml"
    with large.open("wb") as file:
        file.truncate(50 * 2**20)
    with pytest.raises(JobError, match=r"large\.yaml: larger than 2 MiB"):
        load_text(large, kind="a job", error=JobError)


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    for path, said in (
        (tmp_path / "pipe.yaml", "not a regular file"),
        (Path("/dev/zero"), "not a regular file"),
        (tmp_path, "is a folder"),
        (tmp_path / ("a" * 5000), "File name too long"),
        (tmp_path / "none.yaml", "No such file"),
        (tmp_path / "a\0b", "null"),
    ):
        with pytest.raises(JobError, match=said):
            load_bytes(path, kind="a job", error=JobError)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(JobError, match="not UTF-8"):
        load_text(tmp_path / "job.yaml", kind="a job", error=JobError)


def test_bounds_leave_tags_and_broken_yaml_to_others() -> None:
    check_bounds("a: !function x.y\nb: [", where="FILE", error=JobError)
    with pytest.raises(JobError, match="values"):
        check_bounds(laughs(9), where="FILE", error=JobError)
