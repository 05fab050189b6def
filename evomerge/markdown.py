"""Text of others in Markdown: names, labels and reasons that shape nothing of the page.

Nothing here knows what the text is about.
"""

from __future__ import annotations

import re

from evomerge.errors import one_line

_SHAPING = re.compile(r"!(?=\[)|(?<=\])[(\[]|[`|]")
"""What begins a picture, the target of a link, code, or the next cell of a table."""


def plain(text: object) -> str:
    """The text on one line, with no tag, link, picture or table cell of its own."""
    line = one_line(text).replace("<", "&lt;")
    return _SHAPING.sub(lambda sign: f"\\{sign[0]}", line)


def code(text: object) -> str:
    """The text on one line as code, whatever is in it."""
    line = one_line(text)
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence} {line} {fence}" if longest else f"{fence}{line}{fence}"
