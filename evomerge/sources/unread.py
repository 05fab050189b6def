"""Tensors of a checkpoint that are no weights of their own, by what transformers does with them.

Files on the hub hold tensors that transformers passes over (masks and positions that it computes,
layers that draft tokens) and second names of one weight (a head that is the embeddings). A
fine-tune that is saved today has none of them, and they are no difference in how it is built.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

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
    """What of a checkpoint transformers does not read as weights of their own.

    repeated: second names of a weight that is there under its first. ignored: it passes over these
    without a word, or they are of another model that is stored beside this one. own_head: whether
    the configuration ties a head to the embeddings and the files hold another; transformers does
    not tie it then. must_tie: whether the configuration means something else by tying, and must go
    on saying so. parameters: stored name -> the model's own, where another name is all that
    differs.
    """

    repeated: frozenset[str] = frozenset()
    ignored: frozenset[str] = frozenset()
    own_head: bool = False
    must_tie: bool = False
    parameters: Mapping[str, str] = field(default_factory=dict)


def find_unread(config: Mapping[str, Any], shapes: Shapes, equal: Equal) -> Unread:
    """Ask transformers; where it cannot build the model, names alone are looked at."""
    try:
        model = meta_model(config)
    except (UnknownModelError, UnbuildableModelError):
        return _by_names(config, shapes, equal)
    return _by_model(model, config, shapes, equal)


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
    """Of the tensors that have no place in a model, those that are none of its weights.

    left: tensor -> what transformers calls it. Others are named by transformers as left over.
    """
    said = set(model.load({tensor: shapes[tensor] for tensor in left}).unexpected)
    ignored = {tensor for tensor, name in left.items() if name not in said}
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
    """Whether it belongs to layers that guess further tokens, for those who decode with them."""
    if _DRAFTS.search(tensor):
        return True
    depth, split = setting(config, "num_hidden_layers"), split_at_number(tensor)
    drafts = setting(config, DRAFT_KEY)
    return bool(drafts) and split is not None and depth <= split[1] < depth + drafts


def _is_computed(tensor: str, shape: tuple[int, ...]) -> bool:
    """Whether it is a mask of attention or the places of a text, by its name and shape."""
    mask = len(shape) == 4 and shape[:2] == (1, 1) and shape[2] == shape[3]
    return tensor.endswith(("masked_bias", "position_ids")) or (mask and tensor.endswith(".bias"))


_DRAFTS = re.compile(r"(^|\.)(mtp|nextn|eagle|draft)(_\w+)?\.")

_EMBEDDINGS = "embed_tokens.weight"
"""Ending of the embeddings of encoder and decoder, which share one weight and are no head."""


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
