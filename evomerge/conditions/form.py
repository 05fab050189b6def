"""The form of an answer: JSON, one number, a list, a fixed beginning, and so on.

Each form has a short class, and a registry at the end lists them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Literal

from pydantic import Field, field_validator

from evomerge.conditions.condition import Condition, Limited

_NUMBER = re.compile(r"[-+−]?[$€£¥￥]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?%?\.?")
_BOXED = re.compile(r"\\boxed\s*\{[^{}]*\S[^{}]*(?:\{[^{}]*\}[^{}]*)*\}")
# A hyphen, an asterisk or a full stop needs a space: -5, **bold** and 1.5 are no items.
_BULLET = re.compile(r"\s*(?:[-*+]\s|\d+[.)]\s|[•・‣◦]|\d+[．）])\s*\S")
_FENCE = re.compile(r"\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*", re.DOTALL)
_PREAMBLE = re.compile(
    r"""\s*(?:
      (?:sure|certainly|absolutely|of\ course|okay|ok|great\ question|no\ problem)\b
    | here(?:\ is|\ are|['’]s)\b | (?:i['’]d|i\ would)\ be\ (?:happy|glad)\b | below\ (?:is|are)\b
    | はい[、。！] | もちろん | 承知 | かしこまりました | 了解 | わかりました | 以下[はにが]
    | では、 | それでは
    | 当然 | 好的 | 没问题 | 以下是 | 물론 | 네[,.!] | 알겠습니다 | 다음은
    | (?:claro|por\ supuesto|desde\ luego|con\ gusto)\b | aquí\ (?:tienes|está|están|va)\b
    | (?:natürlich|gerne|klar|selbstverständlich)\b | hier\ (?:ist|sind)\b
    | (?:bien\ sûr|certainement|volontiers)\b | voici\b
    )""",
    re.VERBOSE | re.IGNORECASE,
)


class Regex(Condition):
    """The pattern is found somewhere in the answer; `^` and `$` match only its ends."""

    format: Literal["regex"]
    pattern: str

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as cause:
            raise ValueError(f"{pattern} is no regular expression ({cause}); mend it") from cause
        return pattern

    def kept(self, text: str) -> bool:
        """Whether the pattern is found."""
        return re.search(self.pattern, text) is not None


class Number(Condition):
    """The answer is one number and nothing else: `18`, `-1,250.5`, `$70,000`, `12%`."""

    format: Literal["number"]

    def kept(self, text: str) -> bool:
        """Whether the text is a number."""
        return _NUMBER.fullmatch(text.strip()) is not None


class Boxed(Condition):
    r"""The answer holds its result in a LaTeX box: `\boxed{18}`."""

    format: Literal["boxed"]

    def kept(self, text: str) -> bool:
        """Whether there is a box that is not empty."""
        return _BOXED.search(text) is not None


class Json(Condition):
    """The answer is one JSON object or list, in a code fence or not.

    keys: the keys that the object must have, and no others; if not given, any keys.
    """

    format: Literal["json"]
    keys: tuple[str, ...] | None = None

    def kept(self, text: str) -> bool:
        """Whether the text is JSON with these keys."""
        fenced = _FENCE.fullmatch(text)
        try:
            value = json.loads(fenced[1] if fenced else text)
        except (ValueError, RecursionError):
            return False
        if self.keys is not None:
            return isinstance(value, dict) and value.keys() == set(self.keys)
        return isinstance(value, dict | list)


class Bullets(Limited):
    """The number of lines that are items of a list (`- `, `* `, `・`, `1. `) is limited."""

    format: Literal["bullets"]

    def kept(self, text: str) -> bool:
        """Whether the number of items is within the limits."""
        return self.within(sum(_BULLET.match(line) is not None for line in text.splitlines()))


class NoPreamble(Condition):
    """The answer begins without a preamble (`Sure, here is`, `もちろん`, `Claro`)."""

    format: Literal["no_preamble"]

    def kept(self, text: str) -> bool:
        """Whether the text is not empty and has no preamble."""
        return bool(text.strip()) and _PREAMBLE.match(text) is None


class Contains(Condition):
    """The answer has each of these texts; upper and lower case do not matter."""

    format: Literal["contains"]
    texts: tuple[str, ...] = Field(min_length=1)

    def kept(self, text: str) -> bool:
        """Whether all are there."""
        folded = text.casefold()
        return all(wanted.casefold() in folded for wanted in self.texts)


class Lacks(Condition):
    """The answer is not empty and has none of these texts; upper and lower case do not matter."""

    format: Literal["lacks"]
    texts: tuple[str, ...] = Field(min_length=1)

    def kept(self, text: str) -> bool:
        """Whether the text is not empty and none of them is in it."""
        folded = text.casefold()
        return bool(text.strip()) and not any(banned.casefold() in folded for banned in self.texts)


class Begins(Condition):
    """The answer begins with this text; white space before it is ignored."""

    format: Literal["begins"]
    text: str = Field(min_length=1)

    def kept(self, text: str) -> bool:
        """Whether the answer begins with the text."""
        return text.lstrip().startswith(self.text)


class Ends(Condition):
    """The answer ends with this text; white space after it is ignored."""

    format: Literal["ends"]
    text: str = Field(min_length=1)

    def kept(self, text: str) -> bool:
        """Whether the answer ends with the text."""
        return text.rstrip().endswith(self.text)


class LetterCase(Condition):
    """Every letter of the answer that has a case is in this case."""

    format: Literal["lowercase", "uppercase"]

    def kept(self, text: str) -> bool:
        """Whether all letters are in the case; a text without such letters is not kept."""
        return text.islower() if self.format == "lowercase" else text.isupper()


FORMATS: Mapping[str, type[Condition]] = {
    "regex": Regex,
    "number": Number,
    "boxed": Boxed,
    "json": Json,
    "bullets": Bullets,
    "no_preamble": NoPreamble,
    "contains": Contains,
    "lacks": Lacks,
    "begins": Begins,
    "ends": Ends,
    "lowercase": LetterCase,
    "uppercase": LetterCase,
}
"""Forms by the name that settings give under `format`."""
