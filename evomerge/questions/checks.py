"""What a user should know about the questions before using them; each check is a sentence."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from evomerge.evaluate import Split, TaskItems, digest_item, mean_intervals, place_item
from evomerge.job import SplitSpec
from evomerge.questions.items import Item, Read, most_common
from evomerge.questions.kind import Kind
from evomerge.questions.similar import plain_text, similar_pairs
from evomerge.questions.table import shown

Level = Literal["ok", "note", "warning"]

_SHOWN_PLACES = 5
_SHOWN_PAIRS = 3
_MOST_CONSTANT = 0.5
"""Share of items that one answer may be right for before it is worth a word."""

_MUCH = 1.5
_FORMULA = re.compile(r"=\s*[A-Z]+(\d+|\()")


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check: its name, how it ended, and the sentence for the user."""

    name: str
    level: Level
    sentence: str


def distinct_items(items: Sequence[Item]) -> tuple[tuple[Item, ...], list[Check]]:
    """The items without those that are there already, word for word, with the check of them."""
    kept: dict[tuple[object, ...], Item] = {}
    repeated = []
    for item in items:
        if kept.setdefault((*item.asked, "\0", item.answer), item) is not item:
            repeated.append(item.place)
    if not repeated:
        return tuple(items), [
            Check(name="duplicates", level="ok", sentence="no item is there twice")
        ]
    sentence = f"{_counted(len(repeated), 'row', 'repeats', 'repeat')} an earlier one; left out"
    return tuple(kept.values()), [
        Check(name="duplicates", level="warning", sentence=f"{sentence}: {listed(repeated)}")
    ]


def check_rows(read: Read) -> list[Check]:
    """Rows that were left out because a part is missing."""
    checks = []
    for part, places in (("question", read.without_question), ("answer", read.without_answer)):
        if places:
            rows = _counted(len(places), "row", "has", "have")
            checks.append(
                Check(
                    name=f"empty {part}s",
                    level="warning",
                    sentence=f"{rows} no {part}; left out: {listed(places)}",
                )
            )
    if not checks:
        checks = [
            Check(name="empty cells", level="ok", sentence="every row has a question and an answer")
        ]
    return checks


def check_answers(items: Sequence[Item], kind: Kind) -> list[Check]:
    """Answers that contradict each other, that one constant gets right, that are formulas."""
    checks = [_contradictions(items)]
    text, count = most_common(items)
    share = count / len(items)
    if count > 1 and share >= _MOST_CONSTANT:
        checks.append(
            Check(
                name="constant answer",
                level="warning",
                sentence=f"always answering {shown(text)} is right for {share:.0%} of the items; a "
                "score below that says nothing",
            )
        )
    if kind == "choices":
        checks += _choices(items)
    formulas = [item.place for item in items if _FORMULA.match(item.right)]
    if formulas:
        checks.append(
            Check(
                name="formulas",
                level="warning",
                sentence=f"the answers of {listed(formulas)} look like formulas, and are taken as "
                "text; save the table with values",
            )
        )
    return checks


def _contradictions(items: Sequence[Item]) -> Check:
    asked: dict[str, Item] = {}
    differing = []
    for item in items:
        first = asked.setdefault(plain_text(sorted(item.asked)), item)
        if first is not item and first.right != item.right:
            differing.append(f"{first.place} and {item.place}")
    if not differing:
        return Check(
            name="contradictions", level="ok", sentence="no question has two different answers"
        )
    return Check(
        name="contradictions",
        level="warning",
        sentence=f"{_counted(len(differing), 'question')} asked twice with different answers, so "
        f"no model can be right on both: {listed(differing)}",
    )


def _choices(items: Sequence[Item]) -> list[Check]:
    checks = []
    twice = [item.place for item in items if len(set(item.choices)) < len(item.choices)]
    if twice:
        checks.append(
            Check(
                name="equal choices",
                level="warning",
                sentence=f"the same choice is there twice in {listed(twice)}; only one of them "
                "counts as right",
            )
        )
    same_for_all = len({item.choices for item in items}) == 1
    places = [item.answer for item in items if isinstance(item.answer, int)]
    for place in sorted(set(places)) if not same_for_all else ():
        share = places.count(place) / len(places)
        expected = sum(1 / len(item.choices) for item in items) / len(items)
        if len(places) >= 20 and share > max(_MOST_CONSTANT, _MUCH * expected):
            checks.append(
                Check(
                    name="place of the answer",
                    level="warning",
                    sentence=f"choice {place + 1} is the right one in {share:.0%} of the items; "
                    "shuffle the choices, or a model may learn the place",
                )
            )
    return checks


def splits_of(documents: Sequence[Mapping[str, object]], shares: SplitSpec) -> list[Split]:
    """The split in which a job with these shares has each item."""
    return [place_item(digest_item(document), shares) for document in documents]


def check_similar(items: Sequence[Item], splits: Sequence[Split]) -> Check:
    """Questions that are almost the same on both sides of the split."""
    pairs = similar_pairs([plain_text(item.asked) for item in items])
    across = [(one, other) for one, other in pairs if splits[one] != splits[other]]
    count = len({other for _, other in across})
    if not across:
        within = (
            f"; within one part there are {len({other for _, other in pairs}):,}" if pairs else ""
        )
        return Check(
            name="near-duplicates",
            level="ok",
            sentence="no question has an almost equal one in another part of the split" + within,
        )
    named = [
        f"{items[one].place} ({splits[one]}) and {items[other].place} ({splits[other]})"
        for one, other in across[:_SHOWN_PAIRS]
    ]
    more = len(across) - len(named)
    return Check(
        name="near-duplicates",
        level="warning",
        sentence=f"{_counted(count, 'question')} almost the same as one in another part of "
        f"the split, so the search sees what the test asks: {'; '.join(named)}"
        f"{f'; and {more:,} more pairs' if more else ''}; keep one of each",
    )


def check_examples(items: Sequence[Item], examples: Sequence[Item]) -> list[Check]:
    """Items that are almost the same as a few-shot example, whose answer every prompt shows."""
    if not examples:
        return []
    texts = [plain_text(item.asked) for item in (*examples, *items)]
    count = len(examples)
    leaked = sorted({other - count for one, other in similar_pairs(texts) if one < count <= other})
    if not leaked:
        return [
            Check(
                name="few-shot leaks",
                level="ok",
                sentence="no item is almost the same as a few-shot example",
            )
        ]
    return [
        Check(
            name="few-shot leaks",
            level="warning",
            sentence=f"{_counted(len(leaked), 'item')} almost the same as a few-shot "
            f"example, whose answer every prompt shows: "
            f"{listed([items[number].place for number in leaked])}; remove them",
        )
    ]


def check_enough(splits: Sequence[Split], shares: SplitSpec, within: float | None) -> Check:
    """Whether the test items give intervals as narrow as wished, by the intervals of a score."""
    count = splits.count("test")
    missing = [part for part in ("search", "validation", "test") if part not in splits]
    if missing:
        return Check(
            name="number of items",
            level="warning",
            sentence=f"{_counted(len(splits), 'item', 'leaves', 'leave')} none for "
            f"{' and '.join(missing)}; a search needs some in each part",
        )
    half = half_width(count)
    on = "the one test item" if count == 1 else f"the {count:,} test items"
    said = f"a score on {on} is known to ±{half:.3f} at worst (95%)"
    if within is None:
        return Check(name="number of items", level="note", sentence=said)
    needed = items_needed(within)
    if half <= within:
        return Check(name="number of items", level="ok", sentence=f"{said}, within ±{within:g}")
    total = math.ceil(needed / shares.test)
    return Check(
        name="number of items",
        level="warning",
        sentence=f"{said}; ±{within:g} needs about {needed:,} test items, so about {total:,} in "
        f"all with a test share of {shares.test:g}",
    )


def half_width(count: int) -> float:
    """Half of the 95% interval of a score of one half on `count` items: the widest there is."""
    values = tuple(float(number % 2) for number in range(count))
    scores = {"questions": TaskItems(ids=tuple(range(count)), metrics={"right": values})}
    interval = mean_intervals(scores, seed=0)["questions", "right"]
    return (interval.high - interval.low) / 2


def items_needed(within: float) -> int:
    """How many items make the 95% interval of a score at most ±within."""
    # The width is that of a beta distribution, which falls with the root of the items and three.
    tried = max(1, math.ceil(0.96 / within**2))
    while half_width(tried) > within:
        tried = math.ceil(1.02 * tried) + 1
    return tried


def check_lengths(
    model: str,
    lengths: Sequence[int],
    places: Sequence[str],
    context: int,
    *,
    whole: bool = True,
    limit: int | None = None,
    needed: int = 1,
) -> Check:
    """Prompts that do not fit a model with the longest answer.

    lengths: tokens of each item. whole: whether these are all items, not only the longest ones.
    limit: the most tokens of an answer, a part of each length; None where none is generated.
    needed: tokens of the longest right answer, which a lower limit must leave room for.
    """
    long = [place for length, place in zip(lengths, places, strict=True) if length > context]
    longest = max(lengths)
    if not long:
        bound = f"of the {context:,} tokens of {model}"
        if context == sys.maxsize:
            bound = f"tokens of {model}, which states no limit"
        sentence = f"the longest item takes {longest:,} {bound}"
        return Check(name="length", level="ok", sentence=sentence)
    mend = "shorten the texts"
    fitting = context - (longest - limit) if limit is not None else 0
    if fitting >= max(1, needed):
        mend += f", or lower --max-tokens to {fitting:,}"
    least = "at least " if not whole and len(long) == len(lengths) else ""
    return Check(
        name="length",
        level="warning",
        sentence=f"{least}{_counted(len(long), 'item')} longer than the {context:,} tokens of "
        f"{model} with the answer (up to {longest:,}), so the prompt is cut: "
        f"{listed(long)}; {mend}",
    )


def listed(places: Sequence[str]) -> str:
    """Places for a sentence: the first few, and how many more."""
    named = ", ".join(places[:_SHOWN_PLACES])
    more = len(places) - _SHOWN_PLACES
    return f"{named} and {more:,} more" if more > 0 else named


def _counted(count: int, what: str, one: str = "is", many: str = "are") -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'} {one if count == 1 else many}"
