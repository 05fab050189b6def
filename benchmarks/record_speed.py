"""What it costs to record a trial, against Optuna's own way to write the same rows.

    python benchmarks/record_speed.py [--rounds 5] [--trials 30]

Each round writes the same trials with both, one after the other, each into a database of its own
in a temporary folder: milliseconds of processor time for a trial, medians over the rounds, and the
spread of their ratio.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import optuna
from machine import machine
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, create_trial

from evomerge.study.trial_rows import TrialStorage

GENES = (9, 57, 200)
ATTRIBUTES = 12
"""As many as a search records, see evomerge/study/trial.py."""


def trial_of(genes: int) -> FrozenTrial:
    """A trial with so many genes and a search's number of attributes."""
    names = [f"gene{place}" for place in range(genes)]
    return create_trial(
        values=[0.5],
        params=dict.fromkeys(names, 0.25),
        distributions=dict.fromkeys(names, FloatDistribution(0, 1)),
        user_attrs={f"attribute{place}": "x" * 100 for place in range(ATTRIBUTES)},
    )


def cost_ms(kind: type[optuna.storages.RDBStorage], trial: FrozenTrial, trials: int) -> float:
    """Processor time for each of so many trials, the first not counted."""
    with tempfile.TemporaryDirectory() as folder:
        storage = kind(f"sqlite:///{Path(folder) / 'study.db'}")
        study = optuna.create_study(storage=storage)
        study.add_trial(trial)
        began = time.process_time()
        for _ in range(trials):
            study.add_trial(trial)
        spent = time.process_time() - began
        storage.remove_session()
        storage.engine.dispose()
    return 1000 * spent / trials


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=30)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print(machine())
    print("| genes | Optuna ms | evomerge ms | ratio (least to most) |")
    print("|---:|---:|---:|---:|")
    for genes in GENES:
        trial = trial_of(genes)
        pairs = [
            [
                cost_ms(kind, trial, options.trials)
                for kind in (optuna.storages.RDBStorage, TrialStorage)
            ]
            for _ in range(options.rounds)
        ]
        stock, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratios = sorted(a / b for a, b in pairs)
        spread = f"{statistics.median(ratios):.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f})"
        print(f"| {genes} | {stock:.1f} | {ours:.1f} | {spread} |")


if __name__ == "__main__":
    main()
