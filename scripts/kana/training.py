"""The model, one training loop for the base and the experts, and a quick score.

The loss is on the answer alone: the numbers in a question are random and cannot be learned.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from math import cos, pi

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax
from transformers import LlamaConfig, LlamaForCausalLM

from kana.problems import Item, stream
from kana.words import VOCABULARY

IDS = {word: index for index, word in enumerate(VOCABULARY)}
IGNORED = -100


@dataclass(frozen=True, kw_only=True)
class Course:
    """What a model is trained on, for how long, and what of it may move.

    `horizon` is the length of the learning rate's cosine in steps; a base that stops long before it
    is left mediocre on purpose, so that the experts have something to add. `kept` are the shares of
    skills whose answers must stay as they were at the start, right or wrong (Li & Hoiem 2016,
    "Learning without Forgetting"): experts that leave each other's skills alone add up better.
    """

    shares: dict[str, float]
    steps: int
    horizon: int
    peak_rate: float
    batch: int = 128
    kept: dict[str, float] = field(default_factory=dict)
    kept_batch: int = 64
    freeze_words: bool = False


def make_model(seed: int) -> LlamaForCausalLM:
    """A Llama of 1.3 million parameters with random weights."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(VOCABULARY),
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=6,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=64,
            rms_norm_eps=1e-5,
            tie_word_embeddings=False,
            bos_token_id=IDS["<bos>"],
            eos_token_id=IDS["<eos>"],
            pad_token_id=IDS["<pad>"],
        )
    )


def encode(items: list[Item]) -> tuple[Tensor, Tensor]:
    """Token ids and labels, both (items, longest), padded on the right; labels on answers only."""
    rows, labels = [], []
    for item in items:
        asked = [IDS["<bos>"], *(IDS[word] for word in item.question.split())]
        said = [*(IDS[word] for word in item.answer.split()), IDS["<eos>"]]
        rows.append(asked + said)
        labels.append([IGNORED] * len(asked) + said)
    longest = max(map(len, rows))
    padded = [row + [IDS["<pad>"]] * (longest - len(row)) for row in rows]
    marked = [row + [IGNORED] * (longest - len(row)) for row in labels]
    return torch.tensor(padded), torch.tensor(marked)


def train(
    model: LlamaForCausalLM,
    course: Course,
    seed: int,
    report: Callable[[int, float], None] | None = None,
) -> float:
    """Train in place by AdamW with a cosine schedule; returns the seconds it took."""
    started = time.perf_counter()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not (course.freeze_words and ("embed" in name or "head" in name)))
    moving = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(moving, lr=course.peak_rate, betas=(0.9, 0.98), weight_decay=0.05)
    batches = _batches(course.shares, course.batch, seed)
    kept_batches = _batches(course.kept, course.kept_batch, seed + 1)
    start = copy.deepcopy(model).requires_grad_(False).eval()
    model.train()
    for step in range(course.steps):
        for group in optimizer.param_groups:
            group["lr"] = course.peak_rate * _schedule(step, course.horizon)
        rows, labels = encode(next(batches))
        logits = model(input_ids=rows[:, :-1], use_cache=False).logits  # (items, length, words)
        loss = cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)
        torch.autograd.backward(loss)
        if course.kept:
            torch.autograd.backward(_divergence(model, start, next(kept_batches)))
        torch.nn.utils.clip_grad_norm_(moving, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if report and (step + 1) % 100 == 0:
            report(step + 1, loss.item())
    model.requires_grad_(True).eval()
    return time.perf_counter() - started


def _divergence(model: LlamaForCausalLM, start: LlamaForCausalLM, items: list[Item]) -> Tensor:
    """How far the model's answers have moved from the start's: KL divergence a token, a scalar."""
    rows, labels = encode(items)
    answering = labels[:, 1:] != IGNORED
    said = model(input_ids=rows[:, :-1], use_cache=False).logits[answering]  # (tokens, words)
    with torch.no_grad():
        wanted = start(input_ids=rows[:, :-1], use_cache=False).logits[answering]
    return kl_div(
        log_softmax(said, -1), log_softmax(wanted, -1), log_target=True, reduction="batchmean"
    )


def _batches(shares: dict[str, float], size: int, seed: int) -> Iterator[list[Item]]:
    """Batches of items of similar length, which spares a third of the arithmetic (padding)."""
    items = stream(shares, seed)
    rng = random.Random(seed)
    while True:
        pool = sorted(islice(items, 8 * size), key=_length)
        batches = [pool[at : at + size] for at in range(0, len(pool), size)]
        rng.shuffle(batches)
        yield from batches


def _length(item: Item) -> int:
    return len(item.question.split()) + len(item.answer.split())


def _schedule(step: int, horizon: int) -> float:
    """Linear warm-up over 50 steps, then a cosine down to a twentieth at the horizon."""
    warm = min(1.0, (step + 1) / 50)
    return warm * (0.05 + 0.95 * (1 + cos(pi * step / horizon)) / 2)


@torch.no_grad()
def score(model: LlamaForCausalLM, items: list[Item]) -> float:
    """Share of items answered exactly by greedy decoding.

    Every token of the right answer being the likeliest, given the ones before it, is the same thing
    as greedy decoding giving that answer, and takes one forward pass.
    """
    rows, labels = encode(items)
    said = model(input_ids=rows[:, :-1], use_cache=False).logits.argmax(-1)
    wanted = labels[:, 1:]
    return float(((said == wanted) | (wanted == IGNORED)).all(-1).double().mean())
