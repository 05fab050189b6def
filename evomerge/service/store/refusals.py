"""Why the service refuses a request: the field, its value, and the mend.

Refusal        (InputError) the request cannot be accepted (422)
├── NotFound   there is no such thing, or the asker may not see it (404)
├── Conflict   the thing is not in a state for it (409)
├── OverLimit  a limit of a person or a job (429)
├── TooLarge   a file is larger than what may be kept (413)
└── NoRoom     the disk has no room for it (507)
"""

from __future__ import annotations

from evomerge.errors import InputError


class Refusal(InputError):
    """A request that cannot be accepted; its text is `field: value: what; mend`.

    field: dotted path in the request; empty where it is about the whole. value: as text, short.
    """

    def __init__(self, what: str, *, mend: str, field: str = "", value: object = None) -> None:
        self.what = what
        self.field = field
        self.value = None if value is None else str(value)[:300]
        self.mend = mend
        parts = [part for part in (field, self.value, what) if part]
        super().__init__(f"{': '.join(parts)}; {mend}")


class NotFound(Refusal):
    """There is no such thing, or the asker may not see it."""


class Conflict(Refusal):
    """The thing is not in a state for this."""


class OverLimit(Refusal):
    """A limit of a person or of a job."""


class TooLarge(Refusal):
    """A file is larger than what may be kept."""


class NoRoom(Refusal):
    """The disk has no room."""
