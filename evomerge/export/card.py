"""The model card: what a merge is, what it scores, how it was found and how to make it again.

Its readers know only the folder. So it gives the public names of the sources, and never a path of
this machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from evomerge.documents import code, plain
from evomerge.evaluate import Interval, ScoreSummary
from evomerge.export.adapter_facts import AdapterFacts
from evomerge.export.origins import Origin, all_languages, common_licence
from evomerge.export.use import LANGUAGE_MODEL, Use
from evomerge.merge import METHODS, Method
from evomerge.recipe import Recipe
from evomerge.route import hops_of
from evomerge.search import ConstraintCheck, interval_words, seen_words
from evomerge.version import __version__

MIXED_LICENCE = "see-sources"
"""`license_name` of a merge if its sources do not state one licence; the text lists them all."""

_SHOWN_DIGITS = 12
_RESULT_DIGITS = 6


@dataclass(frozen=True, kw_only=True)
class Effort:
    """The size of a search. candidates: scored genomes. items: items they were scored on.

    front: whether it ended with a front, not with one winner. tested_before: earlier selections of
    this search that scored models on the test items.
    """

    space: str
    genes: int
    optimizer: str
    seed: int
    candidates: int
    items: int
    front: bool = False
    tested_before: int = 0


@dataclass(frozen=True, kw_only=True)
class CardScores:
    """The scores of a model: the first summary is the model's own, the others are for comparison.

    about_items: a sentence on the items. tested: whether they are test items. constraints: whether
    the model kept them. differences: the model minus each of the others, by their labels. remarks:
    sentences on the basis of the scores.
    """

    about_items: str
    summaries: tuple[ScoreSummary, ...]
    tested: bool = False
    constraints: tuple[ConstraintCheck, ...] = ()
    differences: Mapping[str, Interval] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Story:
    """What a card says of a merge besides its recipe.

    opening: the first line: whether the model is better than its parents. names: reference ->
    public name, of every model that `opening` and the labels of `scores` may mention. notes: a
    sentence for each setting in which the models differ.
    """

    title: str
    opening: str
    names: Mapping[str, str]
    notes: tuple[str, ...] = ()
    scores: CardScores | None = None
    effort: Effort | None = None


def write_card(
    recipe: Recipe,
    origins: Sequence[Origin],
    *,
    story: Story,
    use: Use = LANGUAGE_MODEL,
    with_code: bool = False,
    adapter: AdapterFacts | None = None,
) -> str:
    """The text of README.md, with the metadata that the Hugging Face hub reads.

    use: what loads the model. with_code: whether the folder has modelling code of the sources.
    adapter: what the folder holds if it is an adapter over a model that `use` loads.
    """
    public = _Public(story.names)
    sections = [
        f"# {plain(story.title)}",
        public.text(story.opening),
        _what_it_is(recipe, public, use, with_code=with_code, adapter=adapter),
        *(f"The {public.text(note)}." for note in story.notes),
        *([] if story.scores is None else _scores(story.scores, public)),
        *([] if story.effort is None else _effort(story.effort)),
        *([] if adapter is None else adapter.section(use.loader)),
        *_rebuilding(recipe, origins, adapter),
        *_sources(origins),
        *_licence(origins),
        f"Made by evomerge {__version__}; `manifest.json` has the sha256 of every file.",
    ]
    stated = {
        **_metadata(origins, use, in_mergekit=_in_mergekit(recipe), adapter=adapter),
        **_results(story, use),
    }
    metadata = yaml.dump(stated, sort_keys=False, allow_unicode=True)
    return f"---\n{metadata}---\n\n" + "\n\n".join(sections) + "\n"


class _Public:
    """Replaces references to models by their public names, as plain text without markup."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = dict(sorted(names.items(), key=lambda item: -len(item[0])))

    def name(self, reference: str) -> str:
        return plain(self._names[reference])

    def text(self, text: str) -> str:
        """Text in which every path or pinned hub id is its public name, the longest first."""
        for reference, name in self._names.items():
            if "/" in reference:
                text = text.replace(reference, name)
        return plain(text)


def _metadata(
    origins: Sequence[Origin], use: Use, *, in_mergekit: bool, adapter: AdapterFacts | None
) -> dict[str, Any]:
    """What the hub reads, in the order in which its own library writes it."""
    licence = common_licence(origins)
    stated = (
        {"license": "other", "license_name": MIXED_LICENCE}
        if licence is None
        else {
            "license": licence.license,
            "license_name": licence.name,
            "license_link": licence.link,
        }
    )
    metadata = {
        "base_model": (
            list(dict.fromkeys(_card_id(origin) for origin in origins))
            if adapter is None
            else adapter.base.partition("@")[0]
        ),
        "language": list(all_languages(origins)) or None,
        "library_name": use.library if adapter is None else "peft",
        **stated,
        "pipeline_tag": use.task,
        "tags": [
            *("merge", "evomerge"),
            *(["mergekit"] if in_mergekit else []),
            *([] if adapter is None else ["lora"]),
        ],
        "base_model_relation": "merge" if adapter is None else "adapter",
    }
    return {key: value for key, value in metadata.items() if value is not None}


def _results(story: Story, use: Use) -> dict[str, Any]:
    """The test scores in the form that the hub shows as evaluation results, with intervals.

    It is the hub's model-index. The newer files in `.eval_results` are for benchmarks that are
    data sets of the hub, each with an id of its own there.
    """
    if story.scores is None or not story.scores.tested:
        return {}
    results = [
        {
            "task": {"type": use.task},
            "dataset": {"type": task, "name": f"{task} (test items of the search)"},
            "metrics": [
                {
                    "type": metric.partition(",")[0],
                    "value": round(interval.value, _RESULT_DIGITS),
                    "name": f"{metric}, {interval.confidence:.0%} interval "
                    f"[{interval.low:.3f}, {interval.high:.3f}]",
                }
                for metric, interval in metrics.items()
            ],
        }
        for task, metrics in story.scores.summaries[0].tasks.items()
        if metrics
    ]
    return {"model-index": [{"name": story.title, "results": results}]} if results else {}


def _card_id(origin: Origin) -> str:
    """The hub's id, without the revision that distinguishes two sources of one repository."""
    return origin.name if origin.revision is None else origin.name.partition("@")[0]


def _what_it_is(
    recipe: Recipe,
    public: _Public,
    use: Use,
    *,
    with_code: bool,
    adapter: AdapterFacts | None,
) -> str:
    stages = recipe.used_stages
    first = [
        f"First {code(name)}: {_merge(stage, public, stages)}." for name, stage in stages.items()
    ]
    merge = _merge(recipe, public, stages)
    loading = (
        "It is a checkpoint of their architecture. Its modelling code is in this folder and has to "
        "be trusted (`trust_remote_code=True`)."
        if with_code
        else "It is a plain checkpoint of their architecture: "
        f"`{use.loader}` loads it, and no code comes with it."
    )
    if adapter is not None:
        loading = f"This folder holds it as a LoRA adapter over {plain(adapter.base)}."
    last = f"Then {merge}." if first else f"{merge[0].upper()}{merge[1:]}."
    return " ".join([*first, last, loading])


def _merge(recipe: Recipe, public: _Public, stages: Mapping[str, Recipe]) -> str:
    """One merge in words; stages were described before."""

    def name(reference: str) -> str:
        return code(reference) if reference in stages else public.name(reference)

    method = METHODS[recipe.merge_method]
    experts = [each for each in recipe.references if each != recipe.base_model]
    models = _listed(name(each) for each in experts or recipe.references)
    base = f" over {name(recipe.base_model)}" if recipe.base_model else ""
    kind = "a merge of"
    if recipe.route is not None:
        kind = f"a model of {len(hops_of(recipe))} layers of"
    elif recipe.slices is not None:
        kind = f"a model of {sum(piece.count for piece in recipe.slices)} layers of"
    return f"{kind} {models}{base}, by `{method.name}` ({method.citation})"


def _scores(scores: CardScores, public: _Public) -> Iterable[str]:
    """A table with a column for each model, so that it stays narrow with many tasks."""
    labels = [public.text(summary.label) for summary in scores.summaries]
    rows = [["objective", *(_interval(summary.score) for summary in scores.summaries)]]
    if scores.differences:
        words = {label: interval_words(interval) for label, interval in scores.differences.items()}
        beside = [words.get(summary.label, "–") for summary in scores.summaries[1:]]
        rows.append([f"{labels[0]} minus it", "–", *beside])
    for task, metrics in scores.summaries[0].tasks.items():
        for metric in metrics:
            found = [s.tasks.get(task, {}).get(metric) for s in scores.summaries]
            rows.append([plain(f"{task}: {metric}"), *map(_interval, found)])
    yield "## Scores"
    yield f"{plain(scores.about_items)} In brackets: 95% intervals."
    yield _table(["score", f"**{labels[0]}**", *labels[1:]], rows)
    if scores.remarks:
        yield public.text(" ".join(scores.remarks))
    if scores.constraints:
        yield "\n".join(_constraint(check) for check in scores.constraints)


def _constraint(check: ConstraintCheck) -> str:
    kept = "kept" if check.kept else "NOT kept"
    return (
        f"- Constraint {kept}: {plain(check.task)}, {plain(check.metric)} {check.score:.3f}, "
        f"wanted at least {check.wanted:.3f}."
    )


def _effort(effort: Effort) -> Iterable[str]:
    yield "## How it was found"
    ended = "those on the front there were" if effort.front else "the winner was"
    tested = (
        f"{ended} scored on test items. {seen_words(effort.tested_before)} No candidate was "
        "proposed by its score on those."
        if effort.tested_before
        else f"{ended} scored once on test items; no candidate was proposed or chosen by its score "
        "on those."
    )
    yield (
        f"By evolutionary search: {code(effort.optimizer)} (seed {effort.seed}) over the search "
        f"space {code(effort.space)} ({effort.genes} genes), {effort.candidates} candidates scored "
        f"on {effort.items} items in all. Finalists were compared on validation items and {tested}"
    )


def _rebuilding(
    recipe: Recipe, origins: Sequence[Origin], adapter: AdapterFacts | None
) -> Iterable[str]:
    yield "## How to make it again"
    options = "" if adapter is None else adapter.options
    yield f"```\nevomerge merge recipe.yaml{options} --out DIR\n```"
    methods = _methods(recipe)
    if _in_mergekit(recipe):
        whole = "" if adapter is None else ", of which mergekit makes the merged checkpoint"
        note = f"The recipe is a mergekit document too{whole}"
        if any(method.random for method in methods):
            note += " (its random masks are mergekit's own, so the result is alike but not equal)"
        command = (
            "mergekit-multi recipe.yaml --out-path DIR --intermediate-dir STAGES"
            if recipe.used_stages
            else "mergekit-yaml recipe.yaml DIR"
        )
        yield f"{note}:\n\n```\n{command}\n```"
    local = [plain(origin.name) for origin in origins if origin.revision is None]
    if local:
        yield (
            f"The recipe names folders of the machine it was made on ({_listed(local)}); put the "
            "paths of yours in their place."
        )


def _methods(recipe: Recipe) -> list[Method]:
    """The methods of all documents of a recipe."""
    documents = [recipe, *recipe.used_stages.values()]
    return [METHODS[document.merge_method] for document in documents]


def _in_mergekit(recipe: Recipe) -> bool:
    """Whether mergekit executes it too."""
    documents = [recipe, *recipe.used_stages.values()]
    known = all(method.mergekit for method in _methods(recipe))
    return known and all(document.route is None for document in documents)


def _sources(origins: Sequence[Origin]) -> Iterable[str]:
    yield "## Sources"
    yield _table(
        ["model", "revision", "licence", "sha256 of the weights"],
        [
            [
                plain(origin.name),
                f"`{origin.revision}`" if origin.revision else "local folder",
                plain(origin.licence or "not stated"),
                _weights_digest(origin),
            ]
            for origin in origins
        ],
    )


def _weights_digest(origin: Origin) -> str:
    weights = sorted(name for name in origin.files if name.endswith(".safetensors"))
    more = f" and {len(weights) - 1} more files" if len(weights) > 1 else ""
    return f"`{origin.files[weights[0]].sha256[:_SHOWN_DIGITS]}…`{more}"


def _licence(origins: Sequence[Origin]) -> Iterable[str]:
    licence = common_licence(origins)
    yield "## Licence"
    if licence is not None:
        yield f"{plain(licence)}, which every source states."
        return
    stated = "; ".join(
        f"{plain(origin.name)}: {plain(origin.licence or 'not stated')}" for origin in origins
    )
    yield (
        f"The sources do not all state one licence ({stated}). A merge is made of all of them, so "
        "check that their terms allow what you want to do with it."
    )


def _interval(interval: Interval | None) -> str:
    if interval is None:
        return "–"
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _listed(names: Iterable[str]) -> str:
    *others, last = dict.fromkeys(names)
    return f"{', '.join(others)} and {last}" if others else last
