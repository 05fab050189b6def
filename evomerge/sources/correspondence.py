"""Matches the tensors of two models that have them under different names.

A vision-language model holds a language model under a prefix, and transformers has changed such
prefixes over the years. Tensors are matched by structure: stacks match if their layers hold tensors
of the same names and shapes, and the tensors beside them match under the same parent. A tied head
is a second name of the embeddings; files may hold it or leave it out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from evomerge.sources.layers import split_at_number
from evomerge.sources.source import Structure

Shapes = Mapping[str, tuple[int, ...]]

HEAD = re.compile(r"(^|\.)(lm_head|embed_out)\.weight$")
"""The head of a language model; with tied weights it is a second name of the embeddings."""


def correspond(lead: Structure, other: Structure) -> Mapping[str, str]:
    """The lead's tensor name -> the other's, for tensors that both have, in the lead's order.

    Outside the layers only names are compared, so shapes may differ there. Models with equal names
    get the identity. If both tie the head to the embeddings and only the lead stores the head, it
    matches the other's embeddings.
    """
    known = _by_parameter(lead, other)
    placed = set(known.values())
    found = place_names(
        {name: shape for name, shape in lead.shapes.items() if name not in placed},
        {name: shape for name, shape in other.shapes.items() if name not in known},
        lead_prefixes=[stack.prefix for stack in lead.stacks],
        other_prefixes=[stack.prefix for stack in other.stacks],
    )
    theirs = {ours: name for name, ours in [*known.items(), *found.items()]}
    if lead.tied and other.tied:
        theirs |= {
            head: theirs[embeddings]
            for head in lead.shapes
            if head not in theirs and HEAD.search(head)
            for embeddings in _of_same_shape(head, lead)
            if embeddings in theirs
        }
    return {name: theirs[name] for name in lead.shapes if name in theirs}


def only_weights(lead: str, structures: Mapping[str, Structure]) -> dict[str, Structure]:
    """Structures by reference, without the tensors that are not weights.

    Tensors that repeat another are left out. Tensors that transformers skips (layers that predict
    further tokens) are kept only if every model has them.
    """
    if not any(structure.repeated or structure.ignored for structure in structures.values()):
        return dict(structures)
    loaded = {
        name: _without(structure, structure.repeated) for name, structure in structures.items()
    }
    ours = loaded[lead]
    found = {name: correspond(ours, structure) for name, structure in loaded.items()}
    shared = {
        tensor
        for tensor in ours.ignored
        if all(
            tensor in found[name]
            and found[name][tensor] in structure.ignored
            and structure.shapes[found[name][tensor]] == ours.shapes[tensor]
            for name, structure in loaded.items()
        )
    }
    return {
        name: _without(structure, structure.ignored - {found[name][tensor] for tensor in shared})
        for name, structure in loaded.items()
    }


def left_over(lead: Structure, other: Structure, found: Mapping[str, str]) -> list[str]:
    """The other's tensors without a place in the lead, except a head that both tie.

    found: the result of `correspond` for the two.
    """
    placed = set(found.values())
    over = [name for name in other.shapes if name not in placed]
    if not (lead.tied and other.tied):
        return over
    # A head is a second name only if the embeddings are there too; these may have more rows.
    columns = {other.shapes[name][1:] for name in placed if other.layer_of(name) is None}
    return [name for name in over if not (HEAD.search(name) and other.shapes[name][1:] in columns)]


def stack_pairs(
    lead: Shapes, other: Shapes, *, lead_prefixes: Iterable[str], other_prefixes: Iterable[str]
) -> dict[str, str]:
    """Prefix of each stack of the other -> prefix of the lead's most similar stack.

    Similarity counts tensors of the same name and shape within the stack, then tensors of the same
    name. Among equals, the same prefix wins, then the first stack of the lead. A stack that
    resembles none is left out.
    """
    within = {prefix: _within(prefix, lead) for prefix in lead_prefixes}
    pairs = {}
    for prefix in other_prefixes:
        theirs = _within(prefix, other)
        likeness = {
            candidate: (
                sum(ours.get(name) == shape for name, shape in theirs.items()),
                sum(name in ours for name in theirs),
                candidate == prefix,
            )
            for candidate, ours in within.items()
        }
        best = max(likeness, key=lambda candidate: likeness[candidate], default=None)
        if best is not None and likeness[best][1]:
            pairs[prefix] = best
    return pairs


def place_names(
    lead: Shapes, other: Shapes, *, lead_prefixes: Iterable[str], other_prefixes: Iterable[str]
) -> dict[str, str]:
    """The other's tensor name -> the lead's, for the tensors that have a place in the lead."""
    if all(lead.get(name) == shape for name, shape in other.items()):
        return {name: name for name in other}
    pairs = stack_pairs(lead, other, lead_prefixes=lead_prefixes, other_prefixes=other_prefixes)
    parents = dict(_parents(theirs, ours) for theirs, ours in pairs.items())
    longest_first = sorted(parents, key=len, reverse=True)
    endings = _endings(lead)
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in other:
        parent = next((prefix for prefix in longest_first if name.startswith(prefix)), None)
        candidates = [] if parent is None else [parents[parent] + name[len(parent) :]]
        candidates += [name, *_same_ending(name, lead, endings)]
        place = next(
            (candidate for candidate in candidates if candidate in lead and candidate not in taken),
            None,
        )
        if place is not None:
            found[name] = place
            taken.add(place)
    return found


def prefixes_of(names: Iterable[str]) -> list[str]:
    """The part before the first number of each name that has a number, each once."""
    splits = (split_at_number(name) for name in names)
    return list(dict.fromkeys(split[0] for split in splits if split is not None))


def _by_parameter(lead: Structure, other: Structure) -> dict[str, str]:
    """The other's tensor name -> the lead's, where both become the same parameter of a model."""
    if lead.architecture != other.architecture or other.shapes.keys() <= lead.shapes.keys():
        return {}
    ours = {lead.parameters.get(name, name): name for name in lead.shapes}
    theirs = ((name, other.parameters.get(name, name)) for name in other.shapes)
    return {name: ours[parameter] for name, parameter in theirs if parameter in ours}


def _without(structure: Structure, names: frozenset[str]) -> Structure:
    """A structure without some tensors, and without stacks that contain only these."""
    if not names:
        return structure
    shapes = {name: shape for name, shape in structure.shapes.items() if name not in names}
    main, *others = structure.stacks
    left = [stack for stack in others if any(name.startswith(stack.prefix) for name in shapes)]
    return replace(
        structure,
        shapes=shapes,
        stacks=(main, *left),
        dtypes={name: structure.dtypes[name] for name in shapes},
        repeated=structure.repeated - names,
        ignored=structure.ignored - names,
    )


def _of_same_shape(head: str, structure: Structure) -> list[str]:
    """The other tensors outside the layers with the shape of a head: the embeddings."""
    shape = structure.shapes[head]
    return [name for name in structure.outer if name != head and structure.shapes[name] == shape]


def _within(prefix: str, shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """The numbered tensors under a prefix, by the rest of their names."""
    return {
        name[len(prefix) :]: shape
        for name, shape in shapes.items()
        if name.startswith(prefix) and name[len(prefix) :].partition(".")[0].isdecimal()
    }


def _parents(theirs: str, ours: str) -> tuple[str, str]:
    """Two prefixes without their common last parts."""
    a, b = theirs.split("."), ours.split(".")
    while a and b and a[-1] == b[-1]:
        a.pop()
        b.pop()
    return "".join(f"{part}." for part in a), "".join(f"{part}." for part in b)


def _endings(lead: Shapes) -> dict[str, list[str]]:
    """Every ending of a name outside numbered modules -> the names that have it."""
    endings: dict[str, list[str]] = {}
    for name in lead:
        if split_at_number(name) is None:
            parts = name.split(".")
            for place in range(1, len(parts)):
                endings.setdefault(".".join(parts[place:]), []).append(name)
    return endings


def _same_ending(name: str, lead: Shapes, endings: Mapping[str, list[str]]) -> list[str]:
    """Names of the lead that end with this name, or that this name ends with, if unambiguous.

    A bare `weight` or `bias` is no match, and numbered tensors are found by their stack.
    """
    if split_at_number(name) is not None:
        return []
    longer = endings.get(name, [])
    parts = name.split(".")
    shorter = [
        ending for place in range(1, len(parts) - 1) if (ending := ".".join(parts[place:])) in lead
    ]
    return [*(longer if len(longer) == 1 else []), *shorter[:1]]
