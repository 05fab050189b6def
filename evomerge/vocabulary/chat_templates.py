"""The chat template that a recipe sets: a known format, the models' own, or a text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from evomerge.errors import RecipeError, one_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ALPACA = """\
{% set system = messages | selectattr('role', 'equalto', 'system') | list %}
{{ (system | last).content | trim if system else '' }}

{% for message in messages %}
{% set title = {'user': 'Instruction', 'assistant': 'Response', 'user_context': 'Input'} %}
{% if message.role in title %}
{{ '### ' + title[message.role] + ':\\n' + message.content | trim }}\
{{ '' if loop.last else '\\n\\n' }}
{%- endif %}
{% endfor %}
{% if add_generation_prompt and messages[-1].role != 'assistant' %}
### Response:
{% endif %}
"""

_CHATML = """\
{% for message in messages %}
{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\\n' }}
{%- endif %}
"""

_EXAONE = """\
{% for message in messages %}
{{ '        [|system|][|endofturn|]\\n\\n' if loop.first and message.role != 'system' else '' }}
{{- '    [|' + message.role + '|]' + message.content }}
        {{ '\\n' if message.role == 'user' else '[|endofturn|]\\n' }}
{% endfor %}
{% if add_generation_prompt %}
    {{ '[|assistant|]' }}
{% endif %}
"""

_LLAMA3 = """\
{% for message in messages %}
{{ bos_token if loop.first else '' }}
{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' }}
{{- message.content | trim + '<|eot_id|>' }}
{% endfor %}
{% if add_generation_prompt %}
{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

_MISTRAL = """\
{%- set led = messages[0].role == 'system' %}
{%- set system = messages[0].content + '\\n\\n' if led else '' %}
{{- bos_token }}
{%- for message in (messages[1:] if led else messages) %}
{%- if message.role != ('user' if loop.index0 is even else 'assistant') %}
{{- raise_exception('After an optional system message, user and assistant must alternate') }}
{%- elif message.role == 'user' %}
{{- ' [INST] ' + (system if loop.first else '') + message.content + ' [/INST]' }}
{%- else %}
{{- ' ' + message.content + eos_token }}
{%- endif %}
{%- endfor %}
"""

CHAT_TEMPLATES = {
    "alpaca": _ALPACA,
    "chatml": _CHATML,
    "exaone": _EXAONE,
    "llama3": _LLAMA3,
    "mistral": _MISTRAL,
}
"""Formats by mergekit's names; their output is the same as that of its files, to the blank."""

_SHORTEST = 20
"""The fewest characters that a template can have."""


def chosen_template(
    wanted: str, tokenizers: Callable[[], Iterable[PreTrainedTokenizerBase]]
) -> str | None:
    """The template that `chat_template: wanted` means.

    `auto` means the template that most models have, the first one if several are equally common,
    and None if no model has one. tokenizers: loads the models' tokenizers in order. Raises
    RecipeError for a text that is neither a known name nor a Jinja template.
    """
    if wanted == "auto":
        own = [text for tokenizer in tokenizers() if (text := _default_template(tokenizer))]
        return Counter(own).most_common(1)[0][0] if own else None
    if wanted in CHAT_TEMPLATES:
        return CHAT_TEMPLATES[wanted]
    if len(wanted) < _SHORTEST or "{" not in wanted:
        raise RecipeError(
            f"chat_template: {wanted}: no such template; write auto, one of "
            f"{', '.join(CHAT_TEMPLATES)}, or a Jinja text"
        )
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import _compile_jinja_template

    try:
        _compile_jinja_template(wanted)
    except TemplateError as error:
        raise RecipeError(
            f"chat_template: not a Jinja text ({one_line(error)}); mend it, or write one of "
            f"{', '.join(CHAT_TEMPLATES)}"
        ) from error
    return wanted


def _default_template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    template = tokenizer.chat_template
    text = template.get("default") if isinstance(template, dict) else template
    return text.strip() or None if isinstance(text, str) else None
