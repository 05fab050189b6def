"""Which tensor of one model is which of another that has it under another name.

A vision-language model holds a language model under a prefix, and transformers has moved such
prefixes over the years. What is the same is found by structure: stacks whose layers hold tensors of
the same names and shapes, and what stands beside them under the same parent. A head that is the
embeddings has a second name, which files hold or leave out.
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
    """The lead's tensor name -> the other's, for the tensors that both have, in the lead's order.

    Names alone are compared outside the layers, so that shapes may differ there. The identity for
    models of equal names. Where both tie the head to the embeddings, and only the lead stores the
    head, it is the other's embeddings.
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
    """Models by reference, less the tensors that are no weights.

    What repeats another tensor is none; what transformers passes over (layers that draft tokens) is
    merged where every model has it, and else is none.
    """
    if not any(each.repeated or each.ignored for each in structures.values()):
        return dict(structures)
    loaded = {name: _without(each, each.repeated) for name, each in structures.items()}
    ours = loaded[lead]
    found = {name: correspond(ours, each) for name, each in loaded.items()}
    shared = {
        tensor
        for tensor in ours.ignored
        if all(
            tensor in found[name]
            and found[name][tensor] in each.ignored
            and each.shapes[found[name][tensor]] == ours.shapes[tensor]
            for name, each in loaded.items()
        )
    }
    return {
        name: _without(each, each.ignored - {found[name][tensor] for tensor in shared})
        for name, each in loaded.items()
    }


def left_over(lead: Structure, other: Structure, found: Mapping[str, str]) -> list[str]:
    """The other's tensors without a place in the lead, but for a head that both tie.

    found: what `correspond` says of the two.
    """
    placed = set(found.values())
    over = [name for name in other.shapes if name not in placed]
    if not (lead.tied and other.tied):
        return over
    # Only beside its embeddings is a head a second name; those may have come to have more rows.
    columns = {other.shapes[name][1:] for name in placed if other.layer_of(name) is None}
    return [name for name in over if not (HEAD.search(name) and other.shapes[name][1:] in columns)]


def stack_pairs(
    lead: Shapes, other: Shapes, *, lead_prefixes: Iterable[str], other_prefixes: Iterable[str]
) -> dict[str, str]:
    """Prefix of each of the other's stacks -> prefix of the lead's that is most like it.

    Alike are tensors of the same name and shape within the stack; then of the same name; of equals
    the first of the lead's is taken, its own prefix before all. A stack like none is left out.
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
        place = next((each for each in candidates if each in lead and each not in taken), None)
        if place is not None:
            found[name] = place
            taken.add(place)
    return found


def prefixes_of(names: Iterable[str]) -> list[str]:
    """What comes before the first number in each of the names that have one, each once."""
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
    """A structure less some tensors, and less the stacks that were made of them alone."""
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
    """The other tensors outside the layers that are shaped as a head is: the embeddings."""
    shape = structure.shapes[head]
    return [name for name in structure.outer if name != head and structure.shapes[name] == shape]


def _within(prefix: str, shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """What is numbered under a prefix, by the rest of its name."""
    return {
        name[len(prefix) :]: shape
        for name, shape in shapes.items()
        if name.startswith(prefix) and name[len(prefix) :].partition(".")[0].isdecimal()
    }


def _parents(theirs: str, ours: str) -> tuple[str, str]:
    """Two prefixes without the parts that end both."""
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
    """Names of the lead that end with this whole name, or that end it, where there is just one.

    A bare `weight` or `bias` says nothing, and what is numbered is found by its stack.
    """
    if split_at_number(name) is not None:
        return []
    longer = endings.get(name, [])
    parts = name.split(".")
    shorter = [
        ending for place in range(1, len(parts) - 1) if (ending := ".".join(parts[place:])) in lead
    ]
    return [*(longer if len(longer) == 1 else []), *shorter[:1]]
