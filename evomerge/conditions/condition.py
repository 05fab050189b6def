"""What every condition is: a frozen value with one question to ask of a text."""

from __future__ import annotations

from abc import ABC, abstractmethod

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Condition(BaseModel, ABC):
    """Its fields are its settings, and a key that it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @abstractmethod
    def kept(self, text: str) -> bool:
        """Whether an answer keeps the condition."""


# Lower and upper limits of something counted.


class Limited(Condition):
    """A count that lies between `at_least` and `at_most`, both meant inclusively.

    Abstract: what is counted belongs to its subclasses. One of the two must be given.
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
        """Whether a count lies between the limits."""
        above = self.at_least is None or count >= self.at_least
        return above and (self.at_most is None or count <= self.at_most)
