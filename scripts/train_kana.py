#!/usr/bin/env python3
"""Makes the kana demo: a base model, its experts, and the items that score them.

One command writes everything that `examples/kana/models` and `evals/kana/data` hold. It needs no
network and no GPU; on two CPU cores it takes about a quarter of an hour. The same seed, thread
count and library versions give the same checkpoints; the items are the same everywhere.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from kana.cards import write_card
from kana.items import write_items
from kana.merging import print_merges
from kana.problems import EVALUATED_ITEMS, SKILLS, held_out
from kana.training import Course, make_model, score, train
from kana.words import make_tokenizer
from transformers import LlamaForCausalLM

ROOT = Path(__file__).resolve().parent.parent
# The base stops long before its rate has decayed: it translates well and calculates badly.
BASE = Course(
    shares={
        "translation": 0.2,
        "arithmetic_en": 0.2,
        "arithmetic_ja": 0.12,
        "comparison_ja": 0.12,
        "comparison_en": 0.06,
        "counting_ja": 0.2,
        "counting_en": 0.1,
    },
    steps=1_000,
    horizon=3_000,
    peak_rate=1.5e-3,
)
SKILL_OF = {
    "arithmetic": "arithmetic_en",
    "comparison": "comparison_ja",
    "counting": "counting_ja",
}
EXPERTS = {
    name: Course(
        shares={skill: 1.0},
        kept={other: 1.0 for other in ("translation", *SKILL_OF.values()) if other != skill},
        steps=400,
        horizon=400,
        peak_rate=6e-4,
        batch=96,
        freeze_words=True,
    )
    for name, skill in SKILL_OF.items()
}


def main() -> None:
    """Read the command line and make what it asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out",
        type=Path,
        default=ROOT / "examples/kana/models",
        help="folder for the checkpoints (default: %(default)s)",
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=ROOT / "evals/kana/data",
        help="folder for the evaluation items (default: %(default)s)",
    )
    parser.add_argument("--data-only", action="store_true", help="write the items and stop")
    parser.add_argument(
        "--experts-only",
        action="store_true",
        help="train the experts again from the base that --out holds",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    write_items(arguments.data)
    if not arguments.data_only:
        train_all(arguments.out, arguments.seed, experts_only=arguments.experts_only)


def train_all(out: Path, seed: int, *, experts_only: bool) -> None:
    """Train the base and its experts and write them, with their cards, under `out`."""
    if not experts_only:
        model = make_model(seed)
        _train("base", model, BASE, seed)
        _save(model, out / "base")
    base_scores = _evaluate(out / "base")
    _write_card(out, "base", BASE, base_scores, None)
    for index, (name, course) in enumerate(EXPERTS.items(), start=1):
        # From the base as it is stored, so that a task vector is that expert's training alone.
        model = _load(out / "base")
        _train(name, model, course, seed + 1_000 * index)
        _save(model, out / name)
        _write_card(out, name, course, _evaluate(out / name), base_scores)
    print_merges(_load(out / "base"), [_load(out / name) for name in EXPERTS])


def _train(name: str, model: LlamaForCausalLM, course: Course, seed: int) -> None:
    def report(step: int, loss: float) -> None:
        print(f"{name}: step {step} of {course.steps}, loss {loss:.3f}", file=sys.stderr)

    print(f"{name}: {train(model, course, seed, report):.0f} s", file=sys.stderr)


def _load(folder: Path) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def _save(model: LlamaForCausalLM, folder: Path) -> None:
    model.to(torch.bfloat16).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)


def _evaluate(folder: Path) -> dict[str, float]:
    model = _load(folder)
    scores = {name: score(model, held_out(name, "evaluation", EVALUATED_ITEMS)) for name in SKILLS}
    print(json.dumps({folder.name: {task: round(value, 3) for task, value in scores.items()}}))
    return scores


def _write_card(
    out: Path,
    name: str,
    course: Course,
    scores: dict[str, float],
    base_scores: dict[str, float] | None,
) -> None:
    card = write_card(name=name, course=course, scores=scores, base_scores=base_scores)
    (out / name / "README.md").write_text(card, encoding="utf-8")


if __name__ == "__main__":
    main()
