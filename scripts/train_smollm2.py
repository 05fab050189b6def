"""Trains the adapters of examples/smollm2: one LoRA expert for each skill.

usage: scripts/train_smollm2.py BASE OUT [--skill problems] [--steps 200]

On two cores each takes some ten minutes. The loss is on the answer alone; questions are asked in the
model's own chat template, as tasks ask them.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

sys.path.insert(0, str(Path(__file__).parent))
from smollm2.items import Item, draw

SKILLS = ("problems", "json", "desks")
BATCH = 8
RANK = 4  # so that an adapter is under 3 MB
LEARNING_RATE = 1e-3
IGNORED = -100


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


def train(base: Path, out: Path, skill: str, *, steps: int, seed: int) -> None:
    """Train one adapter and write it as peft writes adapters, in bfloat16."""
    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    settings = LoraConfig(r=RANK, lora_alpha=4 * RANK, target_modules="all-linear")
    model = get_peft_model(model, settings)
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=LEARNING_RATE, weight_decay=0.0
    )
    items = draw(skill, steps * BATCH, test=False)
    order = random.Random(seed)
    order.shuffle(items)
    started = time.perf_counter()
    for step in range(steps):
        batch = [encode(tokenizer, item) for item in items[step * BATCH : (step + 1) * BATCH]]
        ids = pad_sequence([one for one, _ in batch], True, tokenizer.eos_token_id)
        labels = pad_sequence([one for _, one in batch], True, IGNORED)
        warm = min(1.0, (step + 1) / 10)
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * warm * (1 + math.cos(math.pi * step / steps)) / 2
        mask = torch.arange(ids.shape[1]) < torch.tensor([len(one) for one, _ in batch])[:, None]
        loss = model(input_ids=ids, attention_mask=mask.long(), labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 10 == 9:
            spent = time.perf_counter() - started
            print(f"{skill} step {step + 1}: loss {loss.item():.3f}, {spent:.0f} s", flush=True)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.bfloat16)
    model.save_pretrained(out / skill)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--skill", choices=SKILLS, action="append")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    for skill in given.skill or SKILLS:
        train(given.base, given.out, skill, steps=given.steps, seed=given.seed)


if __name__ == "__main__":
    main()
