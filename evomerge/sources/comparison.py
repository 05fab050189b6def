"""Whether models can be merged with each other, and which model gives the merge its structure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from evomerge.errors import SourceError
from evomerge.sources.correspondence import correspond, left_over, only_weights, stack_pairs
from evomerge.sources.layers import setting, vocabulary_size
from evomerge.sources.source import Source, Stack, Structure

_HEAD_SETTINGS = ("num_attention_heads", "num_key_value_heads", "head_dim")
"""Settings that two models must share; equal tensor shapes do not guarantee them."""


def lead_of(sources: Sequence[Source]) -> Source:
    """The model that gives a merge its structure, configuration and order of tensors.

    It is the first model, unless a model of another architecture has all of its tensors and more.
    An example is a vision-language model that is merged with language models.
    """
    lead = sources[0]
    for other in sources[1:]:
        if is_part(lead.structure, other.structure):
            lead = other
    return lead


def check_compatible(
    sources: Sequence[Source], *, vocabularies_may_differ: bool = False
) -> Structure:
    """The structure of the lead; every source has this structure or is a part of it.

    vocabularies_may_differ: whether tensors with a row for each token may have different numbers of
    rows. Raises SourceError with the first difference, in words.
    """
    lead = lead_of(sources)
    weights = only_weights(
        lead.reference, {source.reference: source.structure for source in sources}
    )
    ours = _Model(lead.config, weights[lead.reference])
    for other in sources:
        theirs = _Model(other.config, weights[other.reference])
        difference = None if other is lead else _difference(ours, theirs, vocabularies_may_differ)
        if difference:
            raise SourceError(
                f"{other.reference} does not fit {lead.reference}: {difference}; "
                "merge only models fine-tuned from the same base"
            )
    return lead.structure


def shared_structure(sources: Sequence[Source]) -> Structure:
    """What a search can vary: the lead's tensors that every source has, with the main stack alone.

    Other stacks that all sources have (a vision tower, an encoder) count as tensors outside the
    layers.
    """
    lead = lead_of(sources).structure
    found = [correspond(lead, source.structure) for source in sources]
    shapes = {
        name: shape for name, shape in lead.shapes.items() if all(name in names for names in found)
    }
    return replace(lead, shapes=shapes, stacks=lead.stacks[:1])


def is_part(part: Structure, whole: Structure) -> bool:
    """Whether a model is a part of another, which has its tensors and more outside its stacks."""
    if part.architecture == whole.architecture:
        return False
    both = only_weights("whole", {"whole": whole, "part": part})
    whole, part = both["whole"], both["part"]
    if len(part.shapes) >= len(whole.shapes):
        return False
    found = correspond(whole, part)
    if left_over(whole, part, found):
        return False
    shared = set(_pairs(whole, part).values())
    more = (whole.stack_of(name) for name in whole.shapes if name not in found)
    return all(stack is None or stack.prefix not in shared for stack in more)


def _pairs(whole: Structure, part: Structure) -> dict[str, str]:
    return stack_pairs(
        whole.shapes,
        part.shapes,
        lead_prefixes=[stack.prefix for stack in whole.stacks],
        other_prefixes=[stack.prefix for stack in part.stacks],
    )


@dataclass(frozen=True, slots=True)
class _Model:
    """A model in a comparison. structure: of its weights alone."""

    config: Mapping[str, Any]
    structure: Structure


def _difference(lead: _Model, other: _Model, vocabularies_may_differ: bool) -> str | None:
    settings = () if vocabularies_may_differ else ("vocab_size",)
    return (
        _build_that_differs(lead.structure, other.structure)
        or _setting_that_differs(lead, other, *settings)
        or _tensor_that_differs(lead, other, vocabularies_may_differ)
        or _setting_that_differs(lead, other, *_HEAD_SETTINGS)
    )


def _build_that_differs(lead: Structure, other: Structure) -> str | None:
    depth = _like_main_of(lead, other).depth
    placed = not left_over(lead, other, correspond(lead, other))
    only_depth = placed and depth != other.depth
    if lead.architecture != other.architecture and not (is_part(other, lead) or only_depth):
        return f"its architecture is {other.architecture}, not {lead.architecture}"
    if depth != other.depth:
        return f"it has {other.depth} layers, not {depth}"
    return None


def _tensor_that_differs(lead: _Model, other: _Model, vocabularies_may_differ: bool) -> str | None:
    a, b = lead.structure, other.structure
    if a.tied != b.tied:
        return f"tie_word_embeddings is {b.tied} there, not {a.tied}"
    found, part = correspond(a, b), is_part(b, a)
    vocabulary_sizes = (
        vocabulary_size(lead.config, a.shapes),
        vocabulary_size(other.config, b.shapes),
    )
    for name, ours in a.shapes.items():
        if name not in found:
            if part:
                continue
            return f"it has no tensor {name}"
        theirs = b.shapes[found[name]]
        by_token = vocabularies_may_differ and (*ours[:1], *theirs[:1]) == vocabulary_sizes
        if theirs != ours and not (by_token and theirs[1:] == ours[1:]):
            return f"{found[name]} has shape {list(theirs)}, not {list(ours)}"
    extra = left_over(a, b, found)
    return f"it has an extra tensor, {extra[0]}" if extra else None


def _like_main_of(lead: Structure, other: Structure) -> Stack:
    """The lead's stack that is most similar to the other's main stack."""
    prefix = _pairs(lead, other).get(other.layer_prefix, lead.layer_prefix)
    return next(stack for stack in lead.stacks if stack.prefix == prefix)


def _setting_that_differs(lead: _Model, other: _Model, *keys: str) -> str | None:
    """The first difference, in words. A setting that one model leaves to its default is skipped."""
    for key in keys:
        ours, theirs = setting(lead.config, key), setting(other.config, key)
        if ours != theirs and None not in (ours, theirs):
            return f"its {key} is {theirs}, not {ours}"
    return None
