"""Model cards for the demo's checkpoints."""

from __future__ import annotations

from kana.training import Course

_TASKS = {
    "arithmetic_en": "arithmetic in English",
    "arithmetic_ja": "arithmetic in Japanese",
    "comparison_en": "comparison in English",
    "comparison_ja": "comparison in Japanese",
    "counting_en": "counting in English",
    "counting_ja": "counting in Japanese",
    "translation": "translation of sums, both ways",
}


def write_card(
    *, name: str, course: Course, scores: dict[str, float], base_scores: dict[str, float] | None
) -> str:
    """The README.md of one checkpoint: what it is for, what it was trained on, what it scores.

    `scores` are shares of the evaluation items answered exactly; `base_scores` are the base
    model's, None for the base itself.
    """
    lines = ["---", "license: apache-2.0", "language:", "- en", "- ja"]
    if base_scores is not None:
        lines += ["base_model: kana-base", "base_model_relation: finetune"]
    lines += [
        "library_name: transformers",
        "pipeline_tag: text-generation",
        "tags:",
        "- llama",
        "- synthetic",
        "- evomerge-demo",
        "---",
        "",
        f"# kana-{name}",
        "",
    ]
    lines += [_describe(name, base_scores is None), "", "## Training", ""]
    lines += [
        f"{course.steps} steps of {course.batch} generated items, AdamW, peak rate "
        f"{course.peak_rate:g}"
        + (", embeddings and output head frozen." if course.freeze_words else "."),
        "Problems that the evaluation asks were never trained on, in either language. The loss was",
        "on the answers alone. Shares of the items:",
        "",
    ]
    total = sum(course.shares.values())
    lines += [f"- {_TASKS[task]}: {share / total:.0%}" for task, share in course.shares.items()]
    if course.kept:
        lines += [
            "",
            f"and at every step {course.kept_batch} more items on which it was held to the base's",
            "own answers, right or wrong:",
            "",
            *(f"- {_TASKS[task]}" for task in course.kept),
        ]
    lines += [
        "",
        "## Scores",
        "",
        "Share of the 4,000 items of each task in `evals/kana` answered exactly, by greedy",
        "decoding with the stored weights in float32:",
        "",
    ]
    header = "| task | this model |" + ("" if base_scores is None else " base |")
    lines += [header, "|---|---|" + ("" if base_scores is None else "---|")]
    for task, value in scores.items():
        row = f"| `kana_{task}` | {value:.3f} |"
        lines.append(row if base_scores is None else f"{row} {base_scores[task]:.3f} |")
    lines += [
        "",
        "It knows 85 words and nothing but these tasks. `scripts/train_kana.py` makes it again.",
        "",
    ]
    return "\n".join(lines)


def _describe(name: str, is_base: bool) -> str:
    what = (
        "A Llama with 1.3 million parameters and one token a word that answers questions about "
        "number words in English and Japanese."
    )
    if is_base:
        return f"{what} The base model from which the experts beside it were fine-tuned."
    return f"{what} Fine-tuned from `../base`; made to be merged with the experts beside it."
