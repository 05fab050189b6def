"""When a generated answer ends, and what its text is.

Decoding a text after every token would cost more than a small model's forward pass, so a text is
decoded only after a token that could complete one of the stop texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lm_eval.models.utils import postprocess_generated_text
from transformers import PreTrainedTokenizerBase

_UNDECODED = "\ufffd"
"""What a tokenizer shows for bytes that are no whole character yet."""


class Stopping:
    """Stop texts and end tokens of one tokenizer, whose own end token is one of these."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, end_tokens: Iterable[int]) -> None:
        self._tokenizer = tokenizer
        own = tokenizer.eos_token_id
        self.end_tokens = frozenset(end_tokens) | (set() if own is None else {own})
        self._may_complete: dict[tuple[int, tuple[str, ...]], bool] = {}

    def ended(self, tokens: Sequence[int], stop: tuple[str, ...]) -> bool:
        """Whether an answer of these tokens (at least one) is complete with its last one."""
        last = tokens[-1]
        if last in self.end_tokens:
            return True
        key = (last, stop)
        may_complete = self._may_complete.get(key)
        if may_complete is None:
            may_complete = self._may_complete[key] = self._completes_some(last, stop)
        if not may_complete:
            return False
        text = self._tokenizer.decode(tokens, skip_special_tokens=False)
        return any(phrase in text for phrase in stop if phrase)

    def text(self, tokens: Sequence[int], stop: tuple[str, ...]) -> str:
        """The answer: without special tokens, cut at the stop texts as lm-eval cuts it."""
        text = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return str(postprocess_generated_text(text, list(stop), None))

    def _completes_some(self, token: int, stop: tuple[str, ...]) -> bool:
        """Whether the token's text holds the last character of a stop text.

        The token is decoded alone and after itself: some tokenizers drop a leading space at the
        beginning of a text.
        """
        piece = self._tokenizer.decode([token], skip_special_tokens=False)
        piece += self._tokenizer.decode([token, token], skip_special_tokens=False)
        return _UNDECODED in piece or any(phrase[-1] in piece for phrase in stop if phrase)
