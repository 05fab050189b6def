"""The search spaces that ship with evomerge, as their files describe them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from evomerge.job import shipped_folder

_GENES = re.compile(r" Genes: (\d+) \(32 layers, 2 sources\)$")


@dataclass(frozen=True, kw_only=True)
class ShippedSpace:
    """A ready space.

    says: what it is, and when to use it. genes: for 32 layers and two sources.
    """

    name: str
    says: str
    genes: int

    @property
    def summary(self) -> str:
        """The first sentence of what it says."""
        return re.split(r"(?<=\.)\s+(?=[A-Z])", self.says, maxsplit=1)[0]


def shipped_spaces() -> list[ShippedSpace]:
    """Every ready space, from the fewest genes to the most."""
    found = []
    for path in sorted(shipped_folder("search_spaces").glob("*.yaml")):
        comment = " ".join(
            line[1:].strip()
            for line in path.read_text(encoding="utf-8").splitlines()
            if line.startswith("#")
        )
        genes = _GENES.search(comment)
        assert genes is not None, f"{path} does not say its genes"
        found.append(
            ShippedSpace(name=path.stem, says=comment[: genes.start()], genes=int(genes[1]))
        )
    return sorted(found, key=lambda space: (space.genes, space.name))
