"""What an exported adapter is: its base, its rank, and how near it comes to the merge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evomerge.documents import plain
from evomerge.export.commands import adapter_code


@dataclass(frozen=True, kw_only=True)
class AdapterFacts:
    """A written adapter.

    base: public name of the model that it is loaded over. rank: of every module. modules: how many
    have low-rank factors. whole: modules and biases that are stored as they are. exact: whether
    the factors are those of the sources, so that only rounding is lost. error: relative error of
    the whole change in the Frobenius norm; errors: the same by module, where factors were cut.
    wanted_rank: the rank that was asked for; None if none was.
    """

    base: str
    rank: int
    modules: int
    whole: tuple[str, ...]
    exact: bool
    error: float
    errors: Mapping[str, float]
    wanted_rank: int | None = None

    @property
    def worst(self) -> tuple[str, float]:
        """The module with the largest error, and that error; only for adapters with errors."""
        return max(self.errors.items(), key=lambda entry: entry[1])

    @property
    def fidelity(self) -> str:
        """How near the adapter comes to the merge, in words."""
        if self.exact:
            return "exact: the sources' own factors, side by side"
        name, error = self.worst
        return (
            f"relative error of the change (Frobenius norm) {self.error:.2g} overall, at worst "
            f"{error:.2g} in {name}"
        )

    def lines(self) -> tuple[str, ...]:
        """The facts in lines for a user."""
        whole = f"; {len(self.whole)} stored whole" if self.whole else ""
        return (
            f"adapter over {self.base}: rank {self.rank} in {self.modules} modules{whole}",
            self.fidelity,
        )

    @property
    def options(self) -> str:
        """The options of `evomerge merge` that write it, after a space each."""
        rank = "" if self.wanted_rank is None else f" --rank {self.wanted_rank}"
        return f" --as-adapter{rank}"

    def section(self, loader: str) -> tuple[str, ...]:
        """The section of a model card. loader: the call of transformers that loads the base."""
        return (
            "## The adapter",
            f"Rank {self.rank} in {self.modules} modules, float32, every scale 1; "
            f"{plain(self.fidelity)}.",
            f"```python\n{adapter_code(loader, 'BASE', 'FOLDER')}\n```",
        )

    def to_json(self) -> dict[str, Any]:
        """The facts as the manifest has them."""
        return {
            "base": self.base,
            "rank": self.rank,
            "modules": self.modules,
            "whole": list(self.whole),
            "dtype": "float32",
            "exact": self.exact,
            "relative_error": self.error,
            "relative_errors": dict(self.errors),
        }
