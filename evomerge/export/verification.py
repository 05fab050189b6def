"""Verification of an exported folder: its files, whether it loads, and whether its scores agree.

Only the manifest of the export is trusted. The published transformers loads the folder, and the
published lm-eval scores it.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers import AutoConfig, AutoTokenizer

from evomerge.errors import EvomergeError, RunError, one_line
from evomerge.evaluate import Say, StockOptions, TaskItems, hush, loader_of, score_stock
from evomerge.export.manifest import changed_files

MOST_DIFFERING = 0.005
"""Largest share of items that may differ in a verified folder."""

_NAMES_SHOWN = 3
_REASON_LETTERS = 300


_ROUNDING = (
    "a few items may differ by rounding where models are scored in bfloat16 or float16; a search "
    "with compute.dtype: float32, or more items, tells whether it is that"
)


@dataclass(frozen=True, kw_only=True)
class TaskComparison:
    """One task, scored by stock lm-eval beside what was recorded.

    items: how many were compared. differing: how many differ in some metric. scores, recorded:
    metric -> mean, of the folder and as recorded.
    """

    task: str
    items: int
    differing: int
    scores: Mapping[str, float]
    recorded: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What a verification found. It ends at the first step that fails; later fields stay empty.

    changed: files that are missing or differ from the manifest. tensors: how many the weights
    have. failure: why transformers could not load the folder; None if it could. missing: tensors
    that the model needs and the files lack. unexpected: tensors that the model does not know.
    unscored: why stock lm-eval could not score the loaded model; None if it could. hint: what may
    explain scores that differ.
    """

    changed: tuple[str, ...] = ()
    tensors: int = 0
    failure: str | None = None
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    unscored: str | None = None
    tasks: tuple[TaskComparison, ...] = ()
    hint: str = _ROUNDING

    @property
    def items(self) -> int:
        """Items compared, over all tasks."""
        return sum(task.items for task in self.tasks)

    @property
    def differing(self) -> int:
        """Items that differ, over all tasks."""
        return sum(task.differing for task in self.tasks)

    @property
    def loads(self) -> bool:
        """Whether the files are unchanged and plain transformers loads every tensor of them."""
        return not (self.changed or self.failure or self.missing or self.unexpected)

    @property
    def verified(self) -> bool:
        """Whether it loads and at most MOST_DIFFERING of the items differ."""
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
            *([] if self.verified else [self.hint]),
        )


def check_peft() -> None:
    """Raise RunError if adapters cannot be verified, because PEFT is not installed."""
    if importlib.util.find_spec("peft") is None:
        raise RunError(
            "--verify: PEFT loads adapters, and it is not installed; pip install peft, or export "
            "without --verify"
        )


def verify(
    folder: Path,
    recorded: Mapping[str, TaskItems],
    options: StockOptions,
    *,
    base: Path | None = None,
    say: Say = hush,
) -> Verification:
    """Rehash a folder, load it by plain transformers and score it by stock lm-eval.

    base: the folder of the model that `folder` holds an adapter over; PEFT then loads the two.
    recorded: task -> each item's results when the merge was scored in memory. The weights are the
    same to the bit, so only the order of sums can differ: lm-eval batches and pads requests in its
    own way. In bfloat16 or float16 a near tie between two answers or two tokens can then fall the
    other way. Such items are counted; a folder with up to MOST_DIFFERING of them (0.5%) counts as
    verified. Raises RunError when the folder has no manifest, TaskError when a task cannot be
    scored.
    """
    say("verifying: reading all files again ...")
    changed = changed_files(folder)
    if changed:
        return Verification(changed=changed)
    say(f"verifying: loading with plain {'transformers' if base is None else 'PEFT'} ...")
    loaded = _load(folder, base, trust_remote_code=options.trust_remote_code)
    if not loaded.loads:
        return loaded
    counts = ", ".join(f"{task} ({len(items.ids):,} items)" for task, items in recorded.items())
    say(f"verifying: scoring with stock lm-eval: {counts} ...")
    try:
        found = score_stock(
            folder,
            {task: items.ids for task, items in recorded.items()},
            {task: tuple(items.metrics) for task, items in recorded.items()},
            options,
            base=base,
        )
    except EvomergeError:
        raise
    except (
        Exception
    ) as error:  # lm-eval may raise anything for a kind of model that it does not know
        return Verification(tensors=loaded.tensors, unscored=one_line(error) or repr(error))
    return Verification(
        tensors=loaded.tensors,
        tasks=tuple(_compare(task, found[task], recorded[task]) for task in recorded),
    )


def _load(folder: Path, base: Path | None, *, trust_remote_code: bool) -> Verification:
    """Load model and tokenizer as any user would, and check that every tensor is used."""
    names: set[str] = set()
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            names.update(tensors.keys())
    trusting: dict[str, bool] = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(base or folder, **trusting)
        model, info = loader_of(config.architectures or ()).from_pretrained(
            base or folder, dtype="auto", output_loading_info=True, **trusting
        )
        if base is not None:
            info = {"mismatched_keys": (), **_load_adapter(model, folder, names)}
        AutoTokenizer.from_pretrained(folder, **trusting)
    except Exception as error:  # a damaged folder, or its code, may raise anything
        return Verification(tensors=len(names), failure=one_line(error) or repr(error))
    shapes = {str(entry[0]) for entry in info["mismatched_keys"]}
    return Verification(
        tensors=len(names),
        missing=tuple(sorted({*info["missing_keys"], *shapes})),
        unexpected=tuple(sorted(info["unexpected_keys"])),
    )


def _load_adapter(model: Any, folder: Path, names: Collection[str]) -> Mapping[str, list[str]]:
    """Load an adapter over a model; which of its tensors PEFT lacks, or has no place for."""
    import peft

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on how adapters are trained
        loaded = peft.PeftModel.from_pretrained(model, str(folder))
        expected = peft.get_peft_model_state_dict(loaded, save_embedding_layers=False)
    return {
        "missing_keys": sorted(expected.keys() - set(names)),
        "unexpected_keys": sorted(set(names) - expected.keys()),
    }


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
