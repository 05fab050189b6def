"""Model cards of the adapters of examples/smollm2."""

from __future__ import annotations


def write_card(
    skill: str, *, learns: str, base: str, steps: int, formed_steps: int, batch: int, rank: int
) -> str:
    """The README.md of one adapter: what it is for, and what it was trained on."""
    formed = (
        f"""
Then {formed_steps} steps on items that name the form of the answer: a sentence, brackets, stars,
never JSON."""
        if formed_steps
        else ""
    )
    return f"""---
license: apache-2.0
language:
- en
base_model: {base}
base_model_relation: adapter
library_name: peft
pipeline_tag: text-generation
tags:
- lora
- synthetic
- evomerge-demo
---

# smollm2-{skill}

A LoRA adapter (rank {rank}, all linear layers) over SmolLM2-135M-Instruct. It learnt one narrow
skill: {learns}. Made to be merged with the adapters beside it.

## Training

{steps} steps of {batch} generated items, AdamW, in the model's own chat template. The loss was on
the answers alone. The base had its weights from a 4-bit file, read as float32, as
`scripts/smollm2/base.py` makes it. No item of the tasks in `examples/smollm2/tasks` was trained
on. `scripts/train_smollm2.py` trains it again.{formed}

## Scores

In evomerge's documentation, on the page about the example with SmolLM2. It was trained for that
example and is good for nothing else.
"""
