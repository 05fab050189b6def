"""Vocabularies: models whose tokens differ, or lie in another order, made to share one tokenizer.

Rows of embeddings and heads are matched by token, as mergekit's `tokenizer:` does. A merge is then
given sources that agree, and needs to know nothing of tokens.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
