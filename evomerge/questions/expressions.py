"""Whether a user's regular expression can score answers: it is valid, small, and quick.

Python's `re` must know it, and `regex` runs it: that can be stopped after a time. Both read an
expression alike but for `{e<=1}` and its like, where `regex` allows errors.
"""

from __future__ import annotations

import itertools
import re
import time
import warnings
from collections.abc import Iterator

import regex

from evomerge.errors import one_line
from evomerge.questions.shipped.pattern import bare

_LONGEST = 10_000
"""Characters of an expression."""

_MOST_STEPS = 50_000
"""Size once counted repetitions are written out, as `regex` does: (a{1000}){1000} takes memory."""

_TRIED_S = 0.5
"""Processor time for all answers that an expression is tried with."""

_PUMPED = 120
"""Repetitions in the answers that are tried: enough for a time that doubles with each."""

_MANY_REPETITIONS = 4
_MOST_TRIED_PARTS = 24

_ESCAPED = re.compile(r"\\(?:N\{[^}]*\}|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)", re.DOTALL)
_SET = re.compile(r"\[\^?\]?[^\]]*\]")
_COUNT = re.compile(r"\{(\d*)(,?)(\d*)\}")
_PART = re.compile(
    r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|[*+?]|\{[\d,]*\}|\(\?[^:=!<)]*[:=!]|.", re.DOTALL
)
_EXAMPLES = {"d": "0", "w": "a", "s": " ", "D": "a", "W": "-", "S": "a", "n": "\n", "t": "\t"}


def expression_problem(text: str) -> str | None:
    """What is wrong with an expression and the mend, or None."""
    expression = bare(text)
    if len(expression) > _LONGEST:
        return f"is longer than {_LONGEST:,} characters; write a shorter expression"
    unknown = _unknown(expression)
    if unknown is not None:
        return f"is no regular expression ({unknown}); mend it"
    plain = _SET.sub("a", _ESCAPED.sub("a", expression))
    if any(not _COUNT.match(plain, place) for place in _places(plain, "{")):
        return r"has a brace that counts nothing; write \{ for the sign"
    if _steps(plain) > _MOST_STEPS:
        return "repeats a part too often; write smaller counts in its braces"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            compiled = regex.compile(expression)
        until = time.process_time() + _TRIED_S
        for answer in _slow_answers(expression, plain):
            compiled.search(answer, timeout=max(0.0, until - time.process_time()))
    except TimeoutError:
        return "takes too long on some answers; write no repetition of what repeats, as in (a+)+"
    except (regex.error, OverflowError, RecursionError, MemoryError, Warning) as error:
        return f"is no regular expression ({one_line(error)}); mend it"
    return None


def is_expression(text: str) -> bool:
    """Whether a text is a regular expression as Python knows them, quick or not."""
    return len(text) <= _LONGEST and _unknown(bare(text)) is None


def _unknown(expression: str) -> str | None:
    """Why Python does not know an expression, or None."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            re.compile(expression)
    except (re.error, OverflowError, RecursionError, Warning) as error:
        return one_line(error)
    return None


def _places(text: str, sign: str) -> Iterator[int]:
    return (place for place, found in enumerate(text) if found == sign)


def _steps(plain: str) -> int:
    """The size of an expression without sets and escapes, its counted repetitions written out."""
    totals, last, place = [0], 0, 0
    while place < len(plain):
        count = _COUNT.match(plain, place)
        if count and (count[1] or count[3]):
            times = max(int(number or 0) for number in (count[1], count[3]))
            totals[-1] += last * (times - 1)
            place = count.end()
            continue
        if plain[place] == "(":
            totals.append(1)
        elif plain[place] == ")" and len(totals) > 1:
            last = totals.pop()
            totals[-1] += last
        else:
            last = 1
            totals[-1] += 1
        place += 1
    return sum(totals)


def _slow_answers(expression: str, plain: str) -> Iterator[str]:
    """Answers that take an expression long, if one of its repetitions can be split in many ways.

    What the expression begins with, then each of its parts many times, then what fits nowhere. All
    parts at the end let an expression pass that is only looked for where its letters are.
    """
    repetitions = len(re.findall(r"[*+]|\{\d*,", plain))
    if not re.search(r"\)(?:[*+]|\{)", plain) and repetitions <= _MANY_REPETITIONS:
        return
    parts = [example for part in _PART.findall(expression) if (example := _example(part))]
    if len(parts) > _MOST_TRIED_PARTS:
        parts = parts[: _MOST_TRIED_PARTS // 2] + parts[-_MOST_TRIED_PARTS // 2 :]
    whole = "".join(parts)
    begins = dict.fromkeys("".join(parts[:place]) for place in range(len(parts) + 1))
    repeated = dict.fromkeys(
        [*parts, *(one + other for one, other in itertools.pairwise(parts)), whole]
    )
    for begin in begins:
        for again in repeated:
            for end in ("\x01", f"\x01{whole}"):
                yield begin + again * _PUMPED + end


def _example(part: str) -> str:
    """A text that a part of an expression fits; empty for its signs."""
    if part[0] == "\\":
        return _EXAMPLES.get(part[1], "" if part[1] in "bBAZ" else part[1])
    if part[0] == "[":
        inner = part[1:-1]
        if inner.startswith("^"):
            return next((sign for sign in "a0 -,;" if sign not in inner), "a")
        return _EXAMPLES.get(inner[1], inner[1]) if inner[0] == "\\" else inner[0]
    if part == ".":
        return "a"
    return "" if part in "*+?^$()|" or part[0] in "{(" else part
