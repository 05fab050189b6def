"""Texts become the token ids that lm-eval's own model would read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from evomerge.errors import TaskError
from evomerge.evaluate.encoding import Encoder

TEXT = "the cat is not a dog and the bird is red , which of the two is it ? answer : the cat\n" * 4
PAIRS = [
    ("the cat is", " red"),
    ("the cat is ", "red"),
    ("the cat is  \n ", "a dog"),
    ("which of the", " two birds ?"),
    ("<s>the cat", " is"),
    ("", "the cat"),
    ("", "<s>the cat"),
    ("answer :", "\n\nthe"),
]


def spaced_tokenizer(*, starts: bool) -> PreTrainedTokenizerFast:
    """Byte-level BPE, where spaces belong to words; `starts`: it begins every text with <s>."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<pad>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=110,
        special_tokens=specials,
        initial_alphabet=[chr(code) for code in range(33, 127)],
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    if starts:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 1)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


class Catcher(HFLM):
    """lm-eval's own model, stopped just before it would run the requests."""

    def _loglikelihood_tokens(  # type: ignore[override]
        self, requests: Sequence[tuple[object, list[int], list[int]]], **_: object
    ) -> list[tuple[float, bool]]:
        self.caught = [(context + end, len(end)) for _, context, end in requests]
        return [(0.0, False)] * len(requests)


@pytest.fixture(params=[False, True], ids=["bare", "starts with <s>"])
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return spaced_tokenizer(starts=request.param)


@pytest.fixture
def stock(base: Path, tokenizer: PreTrainedTokenizerFast) -> Catcher:
    return Catcher(AutoModelForCausalLM.from_pretrained(base), tokenizer=tokenizer)


def test_contexts_and_continuations_are_encoded_as_by_lm_eval(
    stock: Catcher, tokenizer: PreTrainedTokenizerFast
) -> None:
    stock.loglikelihood(
        [Instance("loglikelihood", {}, pair, 0) for pair in PAIRS], disable_tqdm=True
    )
    ours = Encoder(tokenizer).continuations(PAIRS, where="task t")
    assert [(request.tokens.tolist(), request.scored) for request in ours] == stock.caught


def test_prompts_are_encoded_as_by_lm_eval(
    stock: Catcher, tokenizer: PreTrainedTokenizerFast
) -> None:
    texts = ["the cat is", "<s>the cat is ", " a dog\n"]
    ours = Encoder(tokenizer).prompts([(text, {"until": ["\n"]}) for text in texts], where="t")
    for text, request in zip(texts, ours, strict=True):
        ids, _ = stock.tok_batch_encode([text])
        assert request.tokens.tolist() == ids[0].tolist()


def test_generation_settings_are_read_as_by_lm_eval(tokenizer: PreTrainedTokenizerFast) -> None:
    encoder = Encoder(tokenizer)
    settings = [
        {"until": "\n", "max_gen_toks": 9},
        {"until": ["a", "</s>"], "max_new_tokens": 4, "do_sample": False, "temperature": 0.7},
        {},
    ]
    read = encoder.prompts([("the cat", one) for one in settings], where="t")
    assert [(one.stop, one.limit_tokens) for one in read] == [
        (("\n", "</s>"), 9),
        (("a", "</s>"), 4),
        (("</s>",), 256),
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"do_sample": True, "temperature": 1.0}, "task t: .*sampling.*do_sample: false"),
        ({"temperature": 0.5}, "task t: .*sampling"),
        ({"num_beams": 4}, "task t: generation_kwargs: num_beams is not supported"),
        ({"max_gen_toks": 0}, "task t: max_gen_toks: 0 is below 1"),
    ],
)
def test_other_generation_settings_are_refused(
    tokenizer: PreTrainedTokenizerFast, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(TaskError, match=message):
        Encoder(tokenizer).prompts([("the cat", settings)], where="task t")


def test_an_empty_continuation_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(TaskError, match="task t: the continuation '' has no token of its own"):
        Encoder(tokenizer).continuations([("the cat", "")], where="task t")


def test_a_template_without_a_system_role_is_given_none(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}"
        "[{{ m.content }}]{% endfor %}{% if add_generation_prompt %}>{% endif %}"
    )
    messages = [{"role": "system", "content": "be"}, {"role": "user", "content": "cat"}]
    assert Encoder(tokenizer).render_chat(messages) == "[cat]>"
