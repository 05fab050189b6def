"""The union of tokenizers: one that knows every token of several.

Added are tokens, not merges: a text is cut as the first tokenizer cuts it, and a word of another
counts as one token wherever it occurs. It is what mergekit's `union` makes, in a fixed order.
"""

from __future__ import annotations

from collections.abc import Sequence

from transformers import AddedToken, PreTrainedTokenizerBase

from evomerge.vocabulary.tokenizers import Tokens


def add_union(tokenizer: PreTrainedTokenizerBase, models: Sequence[Tokens]) -> None:
    """Add the tokens of all models to the tokenizer of the first of them, which keeps its own.

    First come the words of the others, then what they have added; model after model, by row. Of a
    token that several add with different settings the first counts.
    """
    before = tokenizer.get_vocab()
    beside = {token.content for model in models for token in model.added}
    words: dict[str, None] = {}
    added: dict[str, AddedToken] = {}
    for model in models:
        own = {token.content for token in model.added}
        words |= dict.fromkeys(token for token in model.ids if token not in own)
        for token in model.added:
            added.setdefault(token.content, token)
    tokenizer.add_tokens([word for word in words if word not in before and word not in beside])
    tokenizer.add_tokens(list(added.values()))
