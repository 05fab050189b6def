"""Tasks for measuring the speed of scoring: one set of items as six lm-eval tasks.

Multiple choice and generation, each with five examples that are the same for every item, with five
that are drawn for every item, and with none. The items come from files of questions and answers.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

Document = dict[str, object]

EXAMPLES = {"fixed": 5, "drawn": 5, "none": 0}
"""Which few-shot examples, and how many."""

TASKS = {
    f"{kind}_{examples}": (kind, examples) for kind in ("choice", "answer") for examples in EXAMPLES
}
"""Name -> multiple choice or generation, and its examples."""

_LOADER = '''"""Items of the tasks beside this file."""

import json
from pathlib import Path

from datasets import Dataset


def load(**_metadata):
    """The splits train and test."""
    rows = json.loads((Path(__file__).parent / "items.json").read_text(encoding="utf-8"))
    return {split: Dataset.from_list(rows[split]) for split in rows}
'''


@dataclass(frozen=True, kw_only=True)
class Item:
    """A question, its answer as generated, and four choices of which one is right."""

    question: str
    answer: str
    choices: tuple[str, ...]
    right: int


def kana_items(file: Path) -> list[Item]:
    """Questions of `evals/kana`; a wrong choice is the answer to another question."""
    rows = rows_of(file)
    return with_choices([(row["question"], row["answer"], row["answer"]) for row in rows])


def worked_items(file: Path) -> list[Item]:
    """Questions with worked answers, as GSM8K has them; choices are last steps of such answers."""
    rows = rows_of(file)
    steps = [row["answer"].rpartition("\n####")[0].rpartition("\n")[2] for row in rows]
    return with_choices(
        [
            ("Question: " + row["question"] + "\nAnswer:", row["answer"], step)
            for row, step in zip(rows, steps, strict=True)
        ]
    )


def texts_of(items: Sequence[Item]) -> list[str]:
    """Questions and answers."""
    return [text for item in items for text in (item.question, item.answer)]


def rows_of(file: Path) -> list[dict[str, str]]:
    """The lines of a file of JSON objects."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def with_choices(rows: Sequence[tuple[str, str, str]]) -> list[Item]:
    """Items of (question, answer, right choice); the wrong choices are right ones of others."""
    chance = random.Random(0)
    items = []
    for question, answer, step in rows:
        choices = [step]
        while len(choices) < 4:
            other = chance.choice(rows)[2]
            if other not in choices:
                choices.append(other)
        chance.shuffle(choices)
        right = choices.index(step)
        items.append(Item(question=question, answer=answer, choices=tuple(choices), right=right))
    return items


def write_tasks(
    folder: Path, *, train: Sequence[Item], test: Sequence[Item], limit_tokens: int, until: str
) -> None:
    """Write `TASKS` and their items; until: ends an answer, limit_tokens: the longest answer."""
    splits = {"train": [asdict(item) for item in train], "test": [asdict(item) for item in test]}
    write_items(folder, splits)
    for name, (kind, examples) in TASKS.items():
        write_task(
            folder,
            name,
            kind=kind,
            examples=EXAMPLES[examples],
            fixed=examples == "fixed",
            limit_tokens=limit_tokens,
            until=until,
        )


def write_items(folder: Path, splits: Mapping[str, Sequence[Document]]) -> None:
    """Make a folder with the items of tasks."""
    folder.mkdir(parents=True)
    (folder / "loader.py").write_text(_LOADER, encoding="utf-8")
    (folder / "items.json").write_text(json.dumps(splits), encoding="utf-8")


def write_task(
    folder: Path,
    name: str,
    *,
    kind: str,
    examples: int,
    fixed: bool,
    limit_tokens: int,
    until: str,
) -> None:
    """Write a task over the items in a folder; fixed: whether all items have the same examples."""
    task: Document = {
        "task": name,
        "custom_dataset": "LOADER",
        "fewshot_split": "train",
        "test_split": "test",
        "doc_to_text": "{{question}}",
        "target_delimiter": " ",
        "num_fewshot": examples,
    }
    if fixed and examples:
        task["fewshot_config"] = {"sampler": "first_n"}
    if kind == "choice":
        metric = "acc"
        task |= {
            "output_type": "multiple_choice",
            "doc_to_choice": "{{choices}}",
            "doc_to_target": "right",
        }
    else:
        metric = "exact_match"
        task |= {
            "output_type": "generate_until",
            "doc_to_target": "{{answer}}",
            "generation_kwargs": {
                "until": [until],
                "do_sample": False,
                "max_gen_toks": limit_tokens,
            },
        }
    task["metric_list"] = [{"metric": metric, "aggregation": "mean", "higher_is_better": True}]
    text = yaml.safe_dump(task, sort_keys=False, allow_unicode=True)
    file = folder / f"{name}.yaml"
    file.write_text(text.replace("LOADER", "!function loader.load"), encoding="utf-8")


def save_tokenizer(folders: Sequence[Path], texts: Sequence[str], *, vocabulary: int) -> None:
    """Train byte-level pair encoding on the texts, of real token lengths, and save it in each."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    trained = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>", bos_token="<|endoftext|>"
    )
    for folder in folders:
        trained.save_pretrained(folder)
