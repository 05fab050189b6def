"""Vocabularies: gives one tokenizer to models with different tokens or another order of tokens.

Rows of embeddings and heads are matched by token, as mergekit's `tokenizer:` does. The sources of a
merge then have the same rows.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
