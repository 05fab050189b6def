"""The base class of conditions: a frozen value that checks a text."""

from __future__ import annotations

from abc import ABC, abstractmethod

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Condition(BaseModel, ABC):
    """A condition on an answer; its fields are its settings, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @abstractmethod
    def kept(self, text: str) -> bool:
        """Whether an answer keeps the condition."""


# Conditions with a lower and an upper limit of a count.


class Limited(Condition):
    """A condition on a count: from `at_least` to `at_most`, both included.

    Abstract: its subclasses define the count. At least one of the two limits must be given.
    """

    at_least: int | None = Field(default=None, ge=0)
    at_most: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _limits(self) -> Limited:
        if self.at_least is None and self.at_most is None:
            raise ValueError("no limit; give at_least, at_most or both")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(f"at_least {self.at_least} is above at_most {self.at_most}; swap them")
        return self

    def within(self, count: int) -> bool:
        """Whether a count is within the limits."""
        above = self.at_least is None or count >= self.at_least
        return above and (self.at_most is None or count <= self.at_most)
