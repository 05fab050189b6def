"""Names, labels and reasons of others are shown and never obeyed: by a terminal, or as a page."""

from __future__ import annotations

import errno
import json
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from evomerge.cli import app
from evomerge.cli.endings import say, say_json
from evomerge.documents import code, plain
from evomerge.errors import RunError, StorageError, hide_secrets, one_line, visible
from evomerge.search.results.selection import Selection
from evomerge.study.access import refuse_existing
from evomerge.study.storage import damaged, storage_errors

EVIL = "\x1b[2Jgone \x9b1m \x07\x7f \u202eback \udc80 \u200b"


def test_signs_that_a_terminal_obeys_are_written_out() -> None:
    assert visible(EVIL) == ("\\x1b[2Jgone \\x9b1m \\x07\\x7f \\x202eback \\xdc80 \\x200b")
    assert visible("日本語 é – 😀") == "日本語 é – 😀"
    assert one_line("a\x1b[31m red\nline\r end ") == "a\\x1b[31m red line end"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at postgresql://me:p:w@x@db/a now", "at postgresql://me:***@db/a now"),
        ("a://u:p@h and\nb://:q@h", "a://u:***@h and\nb://:***@h"),
        ("a://h:1/b c@d", "a://h:1/b c@d"),
        ("c@a://h:1/b", "c@a://h:1/b"),
        ("a://b/c://u:p@h", "a://b/c://u:***@h"),
        ("mail me@x, see a://b", "mail me@x, see a://b"),
    ],
)
def test_passwords_of_addresses_are_hidden(text: str, shown: str) -> None:
    assert hide_secrets(text) == shown


def test_a_long_path_of_a_stranger_is_no_work() -> None:
    text = "://:" * 2 * 10**5  # would take minutes by a pattern
    assert hide_secrets(f"{text} a@b") == f"{text} a@b"


def test_a_line_of_a_command_keeps_its_columns(capsys: pytest.CaptureFixture[str]) -> None:
    say(f"  name   {EVIL}")
    assert capsys.readouterr().out == f"  name   {visible(EVIL)}\n"


def test_json_reads_back_and_holds_nothing_that_a_terminal_obeys(
    capsys: pytest.CaptureFixture[str],
) -> None:
    document = {"label": EVIL, "lines": "a\nb\u2028c\x85d", "tag": "\U000e0041"}
    say_json(document)
    said = capsys.readouterr().out
    assert json.loads(said) == document
    assert all(visible(line) == line for line in said.split("\n"))


def test_commands_that_are_shown_can_be_copied(tmp_path: Path) -> None:
    run_dir = tmp_path / "my run; ls"
    run_dir.mkdir()
    (run_dir / "job.yaml").touch()
    quoted = shlex.quote(str(run_dir))
    assert f"`evomerge repair {quoted}`" in str(damaged(run_dir, "a page"))
    with pytest.raises(RunError, match=re.escape(f"`evomerge resume {quoted}`")):
        refuse_existing(run_dir)
    with (
        pytest.raises(StorageError, match=re.escape(f"`evomerge resume {quoted}`")),
        storage_errors(run_dir),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    found: Selection = object.__new__(Selection)
    assert found.export_command(run_dir) == f"evomerge export {quoted} --out DIR"


def test_an_error_does_not_pass_on_what_is_in_a_path() -> None:
    result = CliRunner().invoke(app, ["status", "no\x1b[2J\nsuch"])
    assert result.exit_code == 2
    assert "\x1b" not in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<img src=x onerror=alert(1)>", "&lt;img src=x onerror=alert(1)>"),
        ("a | b\n# c", "a \\| b # c"),
        ("![x](http://a)", "\\![x]\\(http://a)"),
        ("[x](http://a) [y][z]", "[x]\\(http://a) [y]\\[z]"),
        ("`code`", "\\`code\\`"),
        ("+0.100 [-0.100, +0.300]", "+0.100 [-0.100, +0.300]"),
        ("\x1b[2J", "\\x1b[2J"),
    ],
)
def test_text_in_markdown_has_no_shape_of_its_own(text: str, shown: str) -> None:
    assert plain(text) == shown


def test_text_as_code_stays_code() -> None:
    assert code("plain_name") == "`plain_name`"
    assert code("a`b``c") == "``` a`b``c ```"
