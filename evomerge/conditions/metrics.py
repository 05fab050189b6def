"""Conditions as metrics in lm-eval: means over items, so each item has its own score.

    metric_list:
      - metric: !function evomerge.conditions.metrics.right_number_kept
        conditions: [{language: ja}]
        aggregation: mean
        higher_is_better: true

A metric is named after its function. lm-eval calls it with one answer and one target, and with the
other keys of its entry. The answer is what the task's filters return; without a `filter_list` it is
the whole answer. `score_item` is for items that have conditions of their own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from evomerge.conditions.settings import parse_conditions
from evomerge.errors import TaskError

# The last number in an answer, which mathematics benchmarks take as its result.
#
# It can be read in two ways. `published` is the regular expression of Akiba et al. 2024 (arXiv
# 2403.13187, https://github.com/SakanaAI/evolutionary-model-merge): it reads no sign and no
# separators, so it reads `70,000` as 0. `separated` reads both, and is otherwise the same.


Reading = Literal["separated", "published"]

_PUBLISHED = re.compile(r"\d*\.?\d+")
# A minus sign belongs to the number right after it, and never to the number before it.
_SEPARATED = re.compile(
    r"""
    (?:(?<![A-Za-z0-9)\]}])-\$?)?
    (?:\d{1,3}(?:(?:,|\{,\}|\\,)\d{3})+(?!\d) | \d+)
    (?:\.\d+)?
    | \.\d+
    """,
    re.VERBOSE,
)
_NOT_OF_A_NUMBER = re.compile(r"[^\d.\-]")
# Full-width signs and digits become plain ones. Unicode's NFKC would turn m² into m2.
_PLAIN = {0xFF01 + offset: 0x21 + offset for offset in range(94)} | {ord("−"): ord("-")}


def read_last_number(text: str, reading: Reading = "separated") -> float | None:
    """The last number of a text; None where it has none.

    Both readings accept digits of every width and script (`１８` is 18). Neither accepts number
    words or kanji: `七万` has no number, and `7万` is 7.
    """
    if reading == "published":
        found = _PUBLISHED.findall(text)
        return float(found[-1]) if found else None
    found = _SEPARATED.findall(text.translate(_PLAIN))
    return float(_NOT_OF_A_NUMBER.sub("", found[-1])) if found else None


# Two decimal spellings of a number may differ in the last bits of their floats.
_TOLERANCE = 1e-9


def kept(*, references: Sequence[object], predictions: Sequence[str], conditions: object) -> float:
    """1.0 where the answer keeps all conditions, else 0.0."""
    (answer,) = predictions
    return float(all(condition.kept(answer) for condition in parse_conditions(conditions)))


def language(
    *, references: Sequence[object], predictions: Sequence[str], language: str, **among: object
) -> float:
    """1.0 where the answer is in this language; the settings are those of the condition."""
    setting = {"language": language, **among}
    return kept(references=references, predictions=predictions, conditions=setting)


def form(
    *, references: Sequence[object], predictions: Sequence[str], format: str, **settings: object
) -> float:
    """1.0 where the answer has this form; the settings are those of the condition."""
    setting = {"format": format, **settings}
    return kept(references=references, predictions=predictions, conditions=setting)


def length(
    *, references: Sequence[object], predictions: Sequence[str], length: str, **limits: object
) -> float:
    """1.0 where the answer has this length; the settings are those of the condition."""
    setting = {"length": length, **limits}
    return kept(references=references, predictions=predictions, conditions=setting)


def right_number(
    *,
    references: Sequence[object],
    predictions: Sequence[str],
    reading: Reading = "separated",
) -> float:
    """1.0 where the last number of the answer is the last number of the target."""
    if reading not in get_args(Reading):
        raise TaskError(f"reading: {reading} is unknown; use one of {', '.join(get_args(Reading))}")
    (answer,), (target,) = predictions, references
    found, wanted = read_last_number(answer, reading), read_last_number(str(target))
    return float(found is not None and wanted is not None and abs(found - wanted) <= _TOLERANCE)


def right_number_kept(
    *,
    references: Sequence[object],
    predictions: Sequence[str],
    conditions: object,
    reading: Reading = "separated",
) -> float:
    """1.0 where the number is right and the answer keeps all conditions (Akiba et al. 2024)."""
    right = right_number(references=references, predictions=predictions, reading=reading)
    return right * kept(references=references, predictions=predictions, conditions=conditions)


def score_item(doc: Mapping[str, object], results: Sequence[str]) -> dict[str, float]:
    """Scores of an answer by the conditions of its item, for `process_results` of a task.

    doc: its field `conditions` holds the list of settings as JSON. `kept`: 1.0 where all conditions
    are kept. `kept_share`: the share of conditions that are kept.
    """
    conditions = parse_conditions(json.loads(str(doc["conditions"])))
    outcomes = [condition.kept(results[0]) for condition in conditions]
    return {"kept": float(all(outcomes)), "kept_share": sum(outcomes) / len(outcomes)}
