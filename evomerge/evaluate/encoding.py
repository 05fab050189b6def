"""Encodes the texts of requests to token ids as lm-eval's Hugging Face model does.

Everything is encoded once, in batches, when the tasks are built.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import jinja2
import numpy as np
from lm_eval.models.utils import handle_stop_sequences, has_bos_prefix, normalize_gen_kwargs
from transformers import PreTrainedTokenizerBase

from evomerge.errors import TaskError, one_line
from evomerge.evaluate.engines.base import Continuation, Prompt

_DEFAULT_LIMIT_TOKENS = 256
"""Longest answer where a task sets none, as in lm-eval."""

_WITHOUT_EFFECT = frozenset({"do_sample", "temperature", "top_p", "top_k", "min_p", "typical_p"})
"""Generation settings that mean nothing once sampling is off."""


class ChatTemplateError(TaskError):
    """A tokenizer's chat template cannot render a conversation; used inside this package only."""


class Encoder:
    """One tokenizer with lm-eval's rules for context, continuation and special tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        self._prefix: int | None = bos if bos is not None else eos
        self._prefix_text = tokenizer.decode(self._prefix) if self._prefix is not None else None
        self._eos_text = tokenizer.decode(eos) if eos is not None else None

    def render_chat(
        self, messages: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """A conversation as text, without system messages if the template refuses them."""
        try:
            return self._render(messages, add_generation_prompt)
        except jinja2.TemplateError:
            spoken = [message for message in messages if message["role"] != "system"]
        try:
            return self._render(spoken, add_generation_prompt)
        except jinja2.TemplateError as error:
            raise ChatTemplateError(
                f"the tokenizer's chat template fails ({one_line(error)}); mend it, or set "
                "evaluation.apply_chat_template to false"
            ) from error

    def _render(self, messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
        return str(
            self._tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )
        )

    def continuations(self, pairs: Sequence[tuple[str, str]], *, where: str) -> list[Continuation]:
        """Encode (context, continuation) pairs.

        Spaces at the end of a context are moved to the continuation; an empty context becomes the
        beginning-of-text token. Raises TaskError, with `where` in front, for a continuation
        without a token of its own.
        """
        moved = [_move_spaces(context, continuation) for context, continuation in pairs]
        texts = [text for context, end in moved if context for text in (context, context + end)]
        encoded = self._encode(texts, bos=self._prefix_text)
        bare = self._encode([end for context, end in moved if not context], special=False)
        return [self._continuation(pair, encoded, bare, where) for pair in moved]

    def _continuation(
        self,
        pair: tuple[str, str],
        encoded: Mapping[str, list[int]],
        bare: Mapping[str, list[int]],
        where: str,
    ) -> Continuation:
        context, end = pair
        if context:
            head, whole = encoded[context], encoded[context + end]
            # The context's own tokens, then the tokens of the whole text after that many.
            tokens, scored = head + whole[len(head) :], len(whole) - len(head)
        else:
            tail = bare[end]
            started = bool(tail) and tail[0] == self._prefix
            if self._prefix is None:
                raise TaskError(
                    f"{where}: the context is empty and the tokenizer has no beginning-of-text "
                    "token; give the task a description or the tokenizer a bos_token"
                )
            tokens = tail if started else [self._prefix, *tail]
            scored = len(tokens) - 1
        if scored < 1 or len(tokens) <= scored:
            raise TaskError(
                f"{where}: the continuation {end!r} has no token of its own after its context; "
                "check target_delimiter and the choices of the task"
            )
        return Continuation(tokens=np.array(tokens, dtype=np.int64), scored=scored)

    def prompts(
        self, requests: Sequence[tuple[str, Mapping[str, object]]], *, where: str
    ) -> list[Prompt]:
        """Encode (text, generation settings) pairs.

        Raises TaskError, with `where` in front, for settings other than greedy decoding.
        """
        encoded = self._encode([text for text, _ in requests], bos=self._tokenizer.bos_token)
        prompts = []
        for text, settings in requests:
            stop, limit_tokens = self._read_settings(settings, where=where)
            tokens = encoded[text]
            if not tokens and self._prefix is not None:
                tokens = [self._prefix]
            prompts.append(
                Prompt(
                    tokens=np.array(tokens, dtype=np.int64), stop=stop, limit_tokens=limit_tokens
                )
            )
        return prompts

    def _read_settings(
        self, settings: Mapping[str, object], *, where: str
    ) -> tuple[tuple[str, ...], int]:
        normal = normalize_gen_kwargs(dict(settings), _DEFAULT_LIMIT_TOKENS)
        stop = tuple(handle_stop_sequences(normal.pop("until"), eos=self._eos_text))
        limit_tokens = int(normal.pop("max_gen_toks"))
        if normal["do_sample"]:
            raise TaskError(
                f"{where}: generation_kwargs ask for sampling, which makes scores random; set "
                "do_sample: false"
            )
        unknown = sorted(set(normal) - _WITHOUT_EFFECT)
        if unknown:
            raise TaskError(
                f"{where}: generation_kwargs: {unknown[0]} is not supported; keep to until, "
                "max_gen_toks and do_sample: false"
            )
        if limit_tokens < 1:
            raise TaskError(f"{where}: max_gen_toks: {limit_tokens} is below 1; set it higher")
        return stop, limit_tokens

    def _encode(
        self, texts: Iterable[str], *, bos: str | None = None, special: bool = True
    ) -> dict[str, list[int]]:
        """Token ids of each text; a text that begins with `bos` gets no second one."""
        unique = list(dict.fromkeys(texts))
        started = {text for text in unique if has_bos_prefix(text, bos)}
        encoded: dict[str, list[int]] = {}
        for group, add in (
            ([text for text in unique if text not in started], special),
            ([text for text in unique if text in started], False),
        ):
            if group:
                ids = self._tokenizer(
                    group, add_special_tokens=add, return_attention_mask=False, verbose=False
                )
                encoded.update(zip(group, ids["input_ids"], strict=True))
        return encoded


def _move_spaces(context: str, continuation: str) -> tuple[str, str]:
    """Move spaces from the end of a context: a space belongs to the token of the word after it."""
    kept = context.rstrip()
    return kept, context[len(kept) :] + continuation
