#!/usr/bin/env python3
"""Trains the adapters of examples/smollm2: one LoRA expert for each skill.

    scripts/train_smollm2.py BASE OUT [--skill problems]

BASE is what scripts/smollm2/base.py makes. Needs no GPU: a step takes some three seconds on one
CPU core, all three experts (560 steps) half an hour. Questions are asked in the model's own chat
template, as the tasks ask them, and the loss is on the answer alone.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

sys.path.insert(0, str(Path(__file__).parent))
from smollm2.cards import write_card
from smollm2.items import Item, draw, in_forms

NAMED_BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""What the adapters name as their base: its name on the hub, wherever the checkpoint lies here."""
BATCH = 8
RANK = 4  # an adapter is 2.5 MB
LEARNING_RATE = 1e-3
WARM_UP = 10
IGNORED = -100
SETTINGS = "adapter_config.json"


@dataclass(frozen=True, kw_only=True)
class Course:
    """How an expert is trained.

    steps: on questions that say nothing about the form of the answer. formed_steps: then on others
    that name one (JSON never), so that a form is heeded where another expert teaches it. learns:
    for its card.
    """

    steps: int
    formed_steps: int
    learns: str


COURSES = {
    "problems": Course(
        steps=300, formed_steps=80, learns="word problems of one step, answered with a number"
    ),
    "json": Course(
        steps=40, formed_steps=0, learns="facts of a short text, answered as a JSON object"
    ),
    "desks": Course(
        steps=80,
        formed_steps=60,
        learns="which of six desks of a company should read a message",
    ),
}


def encode(tokenizer: PreTrainedTokenizerBase, item: Item) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and labels of one item, (tokens,) each; only the answer has labels."""
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": item.question}], add_generation_prompt=True, tokenize=False
    )
    prompt = tokenizer(asked, add_special_tokens=False)["input_ids"]
    answer = tokenizer(item.answer, add_special_tokens=False)["input_ids"]
    ids = torch.tensor([*prompt, *answer, tokenizer.eos_token_id])
    labels = ids.clone()
    labels[: len(prompt)] = IGNORED
    return ids, labels


def train(base: Path, out: Path, skill: str, *, seed: int) -> None:
    """Train one adapter and write it as PEFT writes adapters, in bfloat16, with its card."""
    course = COURSES[skill]
    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    settings = LoraConfig(
        r=RANK, lora_alpha=4 * RANK, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    model = get_peft_model(model, settings)
    items = draw(skill, (course.steps + course.formed_steps) * BATCH, test=False)
    plain, rest = items[: course.steps * BATCH], items[course.steps * BATCH :]
    random.Random(seed).shuffle(plain)
    learn(model, tokenizer, plain, label=skill)
    round_learnt(model)
    learn(model, tokenizer, in_forms(rest), label=f"{skill}, forms")
    round_learnt(model)
    write(model, out / skill, skill)


def learn(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, items: Sequence[Item], *, label: str
) -> None:
    """One pass over the items in batches, with a warm-up and a cosine decay of the rate."""
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learnt, lr=LEARNING_RATE, weight_decay=0.0)
    steps = len(items) // BATCH
    model.train()
    started = time.perf_counter()
    for step in range(steps):
        batch = [encode(tokenizer, item) for item in items[step * BATCH : (step + 1) * BATCH]]
        ids = pad_sequence([one for one, _ in batch], True, tokenizer.eos_token_id)
        labels = pad_sequence([one for _, one in batch], True, IGNORED)
        mask = torch.arange(ids.shape[1]) < torch.tensor([len(one) for one, _ in batch])[:, None]
        warm = min(1.0, (step + 1) / WARM_UP)
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * warm * (1 + math.cos(math.pi * step / steps)) / 2
        loss = model(input_ids=ids, attention_mask=mask.long(), labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learnt, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 10 == 9:
            spent = time.perf_counter() - started
            print(f"{label} step {step + 1}: loss {loss.item():.3f}, {spent:.0f} s", flush=True)


def round_learnt(model: PeftModel) -> None:
    """Round what was learnt to bfloat16, as it is stored; it stays in float32."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.bfloat16).float()


def write(model: PeftModel, folder: Path, skill: str) -> None:
    """Write the adapter in bfloat16, with its card."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.bfloat16)
    model.peft_config["default"].base_model_name_or_path = NAMED_BASE
    model.save_pretrained(folder)
    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    settings["target_modules"].sort()  # PEFT has a set, of another order each time
    (folder / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    course = COURSES[skill]
    card = write_card(
        skill,
        learns=course.learns,
        base=NAMED_BASE,
        steps=course.steps,
        formed_steps=course.formed_steps,
        batch=BATCH,
        rank=RANK,
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def main() -> None:
    """Train what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", type=Path, help="folder of the base model")
    parser.add_argument("out", type=Path, help="folder for the adapters")
    parser.add_argument("--skill", choices=list(COURSES), action="append", help="default: all")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    for skill in given.skill or COURSES:
        train(given.base, given.out, skill, seed=given.seed)


if __name__ == "__main__":
    main()
