"""What every condition is: a frozen value with one question to ask of a text."""

from __future__ import annotations

from abc import ABC, abstractmethod

from pydantic import BaseModel, ConfigDict


class Condition(BaseModel, ABC):
    """Its fields are its settings, and a key that it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @abstractmethod
    def kept(self, text: str) -> bool:
        """Whether an answer keeps the condition."""
