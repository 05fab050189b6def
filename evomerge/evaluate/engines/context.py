"""What of a request fits a model's context: texts are cut from the left, as lm-eval cuts them.

Nothing here knows a model beyond the length of its context.
"""

from __future__ import annotations

from evomerge.errors import TaskError
from evomerge.evaluate.engines.base import Continuation, Prompt, Tokens


def read_of(request: Continuation, *, context_tokens: int) -> Tokens:
    """What the model reads to score the continuation: all but the last token, (n,).

    Raises TaskError for a continuation longer than the context.
    """
    if request.scored > context_tokens:
        raise TaskError(
            f"a continuation of {request.scored} tokens is longer than the model's context of "
            f"{context_tokens}; leave the item out of the task"
        )
    return request.tokens[-(context_tokens + 1) : -1]


def prompt_of(request: Prompt, *, context_tokens: int) -> Tokens:
    """The end of the prompt that leaves room for an answer, (n,).

    Raises TaskError where that is none.
    """
    room = context_tokens - request.reserved_tokens
    if room < 1:
        raise TaskError(
            f"max_gen_toks: {request.reserved_tokens} leaves no room for a prompt in the model's "
            f"context of {context_tokens} tokens; set it lower in the task"
        )
    return request.tokens[-room:]
