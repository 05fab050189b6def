"""Tensors of a checkpoint that are no weights of their own, by what transformers does with them.

Files on the hub hold tensors that transformers passes over (masks and positions that it computes,
layers that draft tokens) and second names of one weight (a head that is the embeddings). A
fine-tune that is saved today has none of them, and they are no difference in how it is built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from evomerge.sources.correspondence import HEAD
from evomerge.sources.meta_model import (
    MetaModel,
    UnbuildableModelError,
    UnknownModelError,
    meta_model,
)
from evomerge.sources.settings import setting

Shapes = Mapping[str, tuple[int, ...]]

Equal = Callable[[str, str], bool]
"""Whether two stored tensors hold the same bytes."""


@dataclass(frozen=True, kw_only=True)
class Unread:
    """What of a checkpoint transformers does not read as weights of their own.

    unloaded: it says of these that it has no place for them, or they repeat another tensor.
    ignored: it passes over these without a word. own_head: whether the configuration ties a head to
    the embeddings and the files hold another; transformers does not tie it then. parameters: stored
    name -> the model's own, where another name is all that differs.
    """

    unloaded: frozenset[str] = frozenset()
    ignored: frozenset[str] = frozenset()
    own_head: bool = False
    parameters: Mapping[str, str] = field(default_factory=dict)


def find_unread(config: Mapping[str, Any], shapes: Shapes, equal: Equal) -> Unread:
    """Ask transformers; where it does not know the model, the head alone is looked at."""
    try:
        model = meta_model(config)
        return _by_model(model, shapes, equal)
    except (UnknownModelError, UnbuildableModelError):
        return _by_names(config, shapes, equal)


def _by_model(model: MetaModel, shapes: Shapes, equal: Equal) -> Unread:
    named = {tensor: model.rename(tensor) for tensor in shapes}
    left = {tensor: found.name for tensor, found in named.items() if not found.taken}
    said = set(model.load({tensor: shapes[tensor] for tensor in left}).unexpected) if left else ()
    unloaded = {tensor for tensor, name in left.items() if name in said}
    stored = {
        found.name: tensor for tensor, found in named.items() if found.taken and not found.joined
    }
    own_head = False
    for second, first in model.tied.items():
        if second in stored and first in stored:
            a, b = stored[first], stored[second]
            if shapes[a] == shapes[b] and equal(a, b):
                unloaded.add(b)
            elif not second.endswith(_EMBEDDINGS) and first.endswith(".weight"):
                own_head = True
    return Unread(
        unloaded=frozenset(unloaded),
        ignored=frozenset(left.keys() - unloaded),
        own_head=own_head,
        parameters={tensor: name for name, tensor in stored.items() if tensor != name},
    )


_EMBEDDINGS = "embed_tokens.weight"
"""Ending of the embeddings of encoder and decoder, which share one weight and are no head."""


def _by_names(config: Mapping[str, Any], shapes: Shapes, equal: Equal) -> Unread:
    head = next((name for name in shapes if HEAD.search(name)), None)
    if head is None or not setting(config, "tie_word_embeddings"):
        return Unread()
    like = [name for name in shapes if name != head and shapes[name] == shapes[head]]
    embeddings = [name for name in like if "emb" in name or "wte" in name]
    if not embeddings:
        return Unread()
    same = equal(embeddings[0], head)
    return Unread(unloaded=frozenset({head} if same else ()), own_head=not same)
