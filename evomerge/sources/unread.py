"""Finds the tensors of a checkpoint that transformers does not load as weights of their own.

Files on the hub hold tensors that transformers skips: masks and positions that it computes, and
layers that predict further tokens. They also hold second names of one weight: a head that is the
embeddings. A fine-tune that is saved today has none of these, but it has the same structure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from evomerge.sources.answered import ask
from evomerge.sources.correspondence import HEAD
from evomerge.sources.layers import DRAFT_KEY, setting, split_at_number
from evomerge.sources.meta import (
    MetaModel,
    UnbuildableModelError,
    UnknownModelError,
    meta_model,
    pretraining_model,
)

Shapes = Mapping[str, tuple[int, ...]]

Equal = Callable[[str, str], bool]
"""Whether two stored tensors hold the same bytes."""


@dataclass(frozen=True, kw_only=True)
class Unread:
    """The tensors of a checkpoint that transformers does not load as weights of their own.

    repeated: second names of a weight that is also stored under its first name. ignored: tensors
    that transformers skips silently, or that belong to another model stored with this one.
    own_head: whether the configuration ties the head to the embeddings but the files hold another
    head; transformers does not tie it then. must_tie: whether tying has another meaning in the
    configuration, so that it must stay. parameters: stored name -> the model's name, where only the
    name differs.
    """

    repeated: frozenset[str] = frozenset()
    ignored: frozenset[str] = frozenset()
    own_head: bool = False
    must_tie: bool = False
    parameters: Mapping[str, str] = field(default_factory=dict)


def find_unread(config: Mapping[str, Any], shapes: Shapes, equal: Equal) -> Unread:
    """Find them with transformers' model; if it cannot be built, by names alone."""
    question = ask("unread", config, shapes)
    if question.answer is not None:
        return _unread_of(question.answer)
    compared = False

    def noted(a: str, b: str) -> bool:
        nonlocal compared
        compared = True
        return equal(a, b)

    try:
        model = meta_model(config)
    except (UnknownModelError, UnbuildableModelError):
        return _by_names(config, shapes, equal)
    found = _by_model(model, config, shapes, noted)
    if not compared:  # else it depends on the weights too
        question.keep(_document_of(found))
    return found


def _document_of(found: Unread) -> dict[str, Any]:
    return {
        "repeated": sorted(found.repeated),
        "ignored": sorted(found.ignored),
        "own_head": found.own_head,
        "must_tie": found.must_tie,
        "parameters": dict(found.parameters),
    }


def _unread_of(document: Mapping[str, Any]) -> Unread:
    return Unread(
        repeated=frozenset(document["repeated"]),
        ignored=frozenset(document["ignored"]),
        own_head=document["own_head"],
        must_tie=document["must_tie"],
        parameters=document["parameters"],
    )


def _by_model(model: MetaModel, config: Mapping[str, Any], shapes: Shapes, equal: Equal) -> Unread:
    named = {tensor: model.rename(tensor) for tensor in shapes}
    left = {tensor: found.name for tensor, found in named.items() if not found.taken}
    ignored = _passed_over(model, config, left, shapes) if left else set()
    repeated: set[str] = set()
    stored = {
        found.name: tensor for tensor, found in named.items() if found.taken and not found.joined
    }
    own_head = False
    for second, first in model.tied.items():
        if second in stored and first in stored:
            a, b = stored[first], stored[second]
            if shapes[a] == shapes[b] and equal(a, b):
                repeated.add(b)
            elif not second.endswith(_EMBEDDINGS) and first.endswith(".weight"):
                own_head = True
    return Unread(
        repeated=frozenset(repeated),
        ignored=frozenset(ignored),
        own_head=own_head,
        must_tie=hasattr(model.module.config, "scale_decoder_outputs"),
        parameters={tensor: name for name, tensor in stored.items() if tensor != name},
    )


def _passed_over(
    model: MetaModel, config: Mapping[str, Any], left: Mapping[str, str], shapes: Shapes
) -> set[str]:
    """The tensors without a place in a model that are not weights of it.

    left: tensors without a place -> their names in transformers. It reports real weights among
    them.
    """
    unexpected = set(model.load({tensor: shapes[tensor] for tensor in left}).unexpected)
    ignored = {tensor for tensor, name in left.items() if name not in unexpected}
    ignored |= {
        tensor
        for tensor in left
        if _is_draft(tensor, config) or _is_computed(tensor, shapes[tensor])
    }
    before = pretraining_model(config) if left.keys() - ignored else None
    if before is not None:
        ignored |= {tensor for tensor in left if before.rename(tensor).taken}
    return ignored


def _is_draft(tensor: str, config: Mapping[str, Any]) -> bool:
    """Whether a tensor belongs to layers that predict further tokens, for speculative decoding."""
    if _DRAFTS.search(tensor):
        return True
    depth, split = setting(config, "num_hidden_layers"), split_at_number(tensor)
    drafts = setting(config, DRAFT_KEY)
    return bool(drafts) and split is not None and depth <= split[1] < depth + drafts


def _is_computed(tensor: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is an attention mask or position ids, by its name and shape."""
    mask = len(shape) == 4 and shape[:2] == (1, 1) and shape[2] == shape[3]
    return tensor.endswith(("masked_bias", "position_ids")) or (mask and tensor.endswith(".bias"))


_DRAFTS = re.compile(r"(^|\.)(mtp|nextn|eagle|draft)(_\w+)?\.")

_EMBEDDINGS = "embed_tokens.weight"
"""Ending of the embeddings of encoder and decoder; they share one weight and are no head."""


def _by_names(config: Mapping[str, Any], shapes: Shapes, equal: Equal) -> Unread:
    ignored = frozenset(name for name in shapes if _is_computed(name, shapes[name]))
    head = next((name for name in shapes if HEAD.search(name)), None)
    if head is None or not setting(config, "tie_word_embeddings"):
        return Unread(ignored=ignored)
    like = [name for name in shapes if name != head and shapes[name] == shapes[head]]
    embeddings = [name for name in like if "emb" in name or "wte" in name]
    if not embeddings:
        return Unread(ignored=ignored)
    same = equal(embeddings[0], head)
    return Unread(repeated=frozenset({head} if same else ()), own_head=not same, ignored=ignored)
