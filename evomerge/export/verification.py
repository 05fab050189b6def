"""Verification of an exported folder: is it whole, does anyone's runtime load it, does it score so.

It trusts nothing of the export but its manifest: transformers loads the folder and lm-eval scores
it, both as they are published.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open
from transformers import AutoConfig, AutoTokenizer

from evomerge.errors import EvomergeError, one_line
from evomerge.evaluate import Say, StockOptions, TaskItems, hush, loader_of, score_stock
from evomerge.export.manifest import changed_files

MOST_DIFFERING = 0.005
"""Largest share of items that may come out otherwise in a folder that counts as verified."""

_NAMES_SHOWN = 3
_REASON_LETTERS = 300


@dataclass(frozen=True, kw_only=True)
class TaskComparison:
    """One task, scored by stock lm-eval beside what was recorded.

    items: how many were compared. differing: how many have another value in any metric.
    scores, recorded: metric -> mean, of the folder and as recorded.
    """

    task: str
    items: int
    differing: int
    scores: Mapping[str, float]
    recorded: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was found. A folder that fails a step is not taken further, so later fields are empty.

    changed: files that are missing or not what the manifest says. tensors: how many the weights
    hold. failure: why transformers could not load it, None where it could. missing, unexpected:
    names of tensors that the model wants and the files lack, and the other way round. unscored: why
    stock lm-eval could not score what does load, None where it could.
    """

    changed: tuple[str, ...] = ()
    tensors: int = 0
    failure: str | None = None
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    unscored: str | None = None
    tasks: tuple[TaskComparison, ...] = ()

    @property
    def items(self) -> int:
        """Items compared, over all tasks."""
        return sum(task.items for task in self.tasks)

    @property
    def differing(self) -> int:
        """Items that came out otherwise, over all tasks."""
        return sum(task.differing for task in self.tasks)

    @property
    def loads(self) -> bool:
        """Whether the files are unchanged and plain transformers loads every tensor of them."""
        return not (self.changed or self.failure or self.missing or self.unexpected)

    @property
    def verified(self) -> bool:
        """Whether it loads and at most MOST_DIFFERING of the items came out otherwise."""
        return self.loads and self.items > 0 and self.differing <= MOST_DIFFERING * self.items

    def lines(self) -> tuple[str, ...]:
        """The findings in words, the verdict first."""
        if self.changed:
            return (f"NOT verified: {_named(self.changed)} not as manifest.json says",)
        if self.failure:
            return (f"NOT verified: transformers cannot load it ({_short(self.failure)})",)
        if self.missing or self.unexpected:
            return (
                f"NOT verified: tensors missing: {_named(self.missing)}; "
                f"unexpected: {_named(self.unexpected)}",
            )
        if self.unscored:
            return (
                f"NOT verified: transformers loads all {self.tensors} tensors of it, and stock "
                f"lm-eval cannot score it ({_short(self.unscored)})",
            )
        verdict = "verified" if self.verified else "NOT verified"
        return (
            f"{verdict}: {self.differing} of {self.items} items differ under stock lm-eval "
            f"(at most {MOST_DIFFERING:.1%} may); {self.tensors} tensors, all files as listed",
            *(_line(task) for task in self.tasks),
        )


def verify(
    folder: Path, recorded: Mapping[str, TaskItems], options: StockOptions, *, say: Say = hush
) -> Verification:
    """Rehash a folder, load it by plain transformers and score it by stock lm-eval.

    recorded: task -> what each item was when the merge was scored in memory. The weights are the
    same to the bit, so what may differ is the order of sums alone: lm-eval batches and pads
    requests in its own way, and in bfloat16 or float16 a near tie between two answers or two
    tokens can then fall the other way. Such flips are counted, and up to MOST_DIFFERING of the
    items (0.5%) they count as verified; the counts are exact either way. Raises RunError when the
    folder has no manifest, TaskError when a task cannot be scored.
    """
    say("verifying: reading all files again ...")
    changed = changed_files(folder)
    if changed:
        return Verification(changed=changed)
    say("verifying: loading with plain transformers ...")
    loaded = _load(folder, trust_remote_code=options.trust_remote_code)
    if not loaded.loads:
        return loaded
    counts = ", ".join(f"{task} ({len(one.ids):,} items)" for task, one in recorded.items())
    say(f"verifying: scoring with stock lm-eval: {counts} ...")
    try:
        found = score_stock(
            folder,
            {task: items.ids for task, items in recorded.items()},
            {task: tuple(items.metrics) for task, items in recorded.items()},
            options,
        )
    except EvomergeError:
        raise
    except Exception as error:  # whatever lm-eval makes of a kind of model that it does not know
        return Verification(tensors=loaded.tensors, unscored=one_line(error) or repr(error))
    return Verification(
        tensors=loaded.tensors,
        tasks=tuple(_compare(task, found[task], recorded[task]) for task in recorded),
    )


def _load(folder: Path, *, trust_remote_code: bool) -> Verification:
    """Load model and tokenizer as any user would, and see that no tensor is left over."""
    names: set[str] = set()
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            names.update(tensors.keys())
    trusting: dict[str, bool] = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(folder, **trusting)
        _, info = loader_of(config.architectures or ()).from_pretrained(
            folder, dtype="auto", output_loading_info=True, **trusting
        )
        AutoTokenizer.from_pretrained(folder, **trusting)
    except Exception as error:  # whatever a folder, or code that came with it, makes them raise
        return Verification(tensors=len(names), failure=one_line(error) or repr(error))
    shapes = {str(entry[0]) for entry in info["mismatched_keys"]}
    return Verification(
        tensors=len(names),
        missing=tuple(sorted({*info["missing_keys"], *shapes})),
        unexpected=tuple(sorted(info["unexpected_keys"])),
    )


def _compare(task: str, found: TaskItems, recorded: TaskItems) -> TaskComparison:
    ours = zip(*(recorded.metrics[metric] for metric in recorded.metrics), strict=True)
    theirs = zip(*(found.metrics[metric] for metric in recorded.metrics), strict=True)
    return TaskComparison(
        task=task,
        items=len(recorded.ids),
        differing=sum(not _equal(a, b) for a, b in zip(ours, theirs, strict=True)),
        scores={metric: found.mean(metric) for metric in recorded.metrics},
        recorded={metric: recorded.mean(metric) for metric in recorded.metrics},
    )


def _equal(ours: Sequence[float], theirs: Sequence[float]) -> bool:
    """Right and wrong are compared exactly, fractions up to the rounding of a division."""
    return all(math.isclose(a, b, rel_tol=1e-9) for a, b in zip(ours, theirs, strict=True))


def _named(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more if names else "none"


def _short(reason: str) -> str:
    return reason if len(reason) <= _REASON_LETTERS else f"{reason[:_REASON_LETTERS]}…"


def _line(task: TaskComparison) -> str:
    scores = ", ".join(
        f"{metric} {value:.4f} (recorded {task.recorded[metric]:.4f})"
        for metric, value in task.scores.items()
    )
    return f"{task.task}: {task.differing} of {task.items} items differ; {scores}"
