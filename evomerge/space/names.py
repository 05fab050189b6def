"""Short names of models, for genes, labels and figures.

A name is the end of a reference, as short as keeps the models apart. It does not know what the
references point to.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence


def short_names(references: Sequence[str], *, taken: Collection[str] = ()) -> dict[str, str]:
    """reference -> its last path component, or as many as make it unique.

    A revision (`@...`) is left out unless it is all that tells two apart. `taken` are names that
    no model may get; a reference of which every ending is taken is numbered.
    """
    parts = {reference: _parts(reference, references) for reference in references}
    names: dict[str, str] = {}
    for reference in references:
        others = [parts[other] for other in references if other != reference]
        names[reference] = _shortest(parts[reference], others, {*taken, *names.values()})
    return names


def _shortest(parts: list[str], others: list[list[str]], taken: set[str]) -> str:
    for length in range(1, len(parts) + 1):
        ending = parts[-length:]
        rivals = [other for other in others if other[-length:] == ending]
        # A whole path is a name of its own although longer paths end in it.
        unique = not rivals or (length == len(parts) and parts not in rivals)
        if unique and "/".join(ending) not in taken:
            return "/".join(ending)
    number = 2
    while f"{parts[-1]} ({number})" in taken:
        number += 1
    return f"{parts[-1]} ({number})"


def _parts(reference: str, references: Sequence[str]) -> list[str]:
    path = reference.partition("@")[0]
    if sum(other.partition("@")[0] == path for other in references) > 1:
        path = reference
    return [part for part in path.replace("\\", "/").split("/") if part] or [reference]
