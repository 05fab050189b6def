"""The report on a job in words, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from evomerge.check.plan_words import plan_lines
from evomerge.check.sizes import seconds_text, size_text
from evomerge.report import count_text, estimate_text
from evomerge.search import PhaseForecast

if TYPE_CHECKING:
    from evomerge.check.report import CheckReport, TaskCheck
    from evomerge.evaluate import ShownItem

_LONGEST = 3000
"""Most characters of a text that is shown; the middle of a longer one is left out."""

_NAMED_GENES = 6


def lines_of(report: CheckReport) -> list[str]:
    """The whole report, line by line."""
    return [
        f"{report.job}: a search accepts this job" + _as_far(report),
        "",
        *_models(report),
        *_space(report),
        *_goals(report),
        *(line for task in report.tasks for line in _task(task, report)),
        *_plan(report),
        *(_here(report) if report.plan is None else plan_lines(report.plan)),
        *(f"note: {note}" for note in report.notes),
    ]


def _as_far(report: CheckReport) -> str:
    if report.plan is not None:
        return ", as far as headers and tasks show: no model was loaded, and no weight checked."
    return "." if report.timing else ", as far as this shows without running a model."


def _here(report: CheckReport) -> Iterator[str]:
    """Time and memory on this machine."""
    yield from _time(report)
    yield from _memory(report)


def _models(report: CheckReport) -> Iterator[str]:
    yield "models"
    for model in report.models:
        yield (
            f"  {model.part}: {model.reference}: {_number(model.parameters)} parameters, "
            f"{model.dtype}, {count_text(model.layers, 'layer')}"
        )


def _space(report: CheckReport) -> Iterator[str]:
    yield "search space"
    for stage in report.forecast.stages:
        name = f"{stage.name}: " if len(report.forecast.stages) > 1 else ""
        shown = ", ".join(stage.genes[:_NAMED_GENES])
        more = ", ..." if len(stage.genes) > _NAMED_GENES else ""
        yield f"  {name}{count_text(len(stage.genes), 'gene')}: {shown}{more}"


def _goals(report: CheckReport) -> Iterator[str]:
    axes = sum(goal.part == "objective" for goal in report.goals)
    how = "a front" if report.combined == "front" else f"one score, {report.combined}"
    yield "objective" if axes == 1 else f"objectives: {how}"
    for goal in report.goals:
        kept = "constraint: " if goal.part == "constraint" else ""
        yield f"  {kept}{goal.name}, {goal.wanted}"
        if goal.members:
            weighed = "weighted by their items" if goal.weight_by_size else "of the same weight"
            counted = count_text(len(goal.members), "task")
            how = f"{counted}, {weighed}" if len(goal.members) > 1 else counted
            yield f"    {how}: {', '.join(goal.members)}"


def _task(task: TaskCheck, report: CheckReport) -> Iterator[str]:
    facts = task.facts
    only = " (reported at the end only)" if task.reported_only else ""
    yield f"task {task.name}{only}"
    yield f"  metric: {', '.join(task.metrics) or 'none'}"
    counts = ", ".join(f"{number:,} {split}" for split, number in task.items.items())
    lost = task.shown_as_examples
    yield f"  items: {counts}" + (f"; {lost:,} are few-shot examples, not scored" if lost else "")
    chat = "with the chat template" if task.chat_template else "no chat template"
    examples = count_text(facts.examples, "few-shot example")
    yield f"  {facts.output_type}, {examples if facts.examples else 'no examples'}, {chat}"
    prompt, answer = facts.prompt_tokens, facts.answer_tokens
    said = f"  tokens of a prompt: {prompt.median:,}, the longest {prompt.longest:,}"
    if answer is not None:
        said += f"; of an answer: {answer.median:,}, the longest {answer.longest:,}"
    if facts.limit_tokens is not None:
        said += f"; an answer may have {facts.limit_tokens:,}"
    yield said
    known = ", ".join(
        f"±{width:.3f} with the {task.items[split]:,} {split} items"
        for split, width in task.half_width.items()
    )
    yield f"  a share near 0.5 is known to {known} (95%)"
    few = {split: number for split, number in task.items.items() if number < report.items_within}
    if few:
        total = sum(task.items.values())
        split, number = min(few.items(), key=lambda pair: pair[1])
        yield (
            f"  ±{report.within:g} needs {report.items_within:,} items: {split} has {number:,}"
            + ("" if task.reported_only else f" of the task's {total:,}; give the task more items")
        )
    for item in task.shown:
        yield from _item(item)


def _item(item: ShownItem) -> Iterator[str]:
    yield f"  item {item.item}"
    for prompt in item.prompts:
        yield from (f"    | {line}" for line in _text(prompt).split("\n"))
    for answer in item.answers:
        mark = "*" if answer.strip() == item.target.strip() else " "
        yield f"   {mark}> {_quoted(answer)}"
    if item.target.strip() not in [answer.strip() for answer in item.answers]:
        yield f"    right: {_quoted(item.target)}"


def _text(text: str) -> str:
    """A text with its middle left out where it is long, and an end that cannot be seen named."""
    if len(text) > _LONGEST:
        left_out = len(text) - _LONGEST
        half = _LONGEST // 2
        text = f"{text[:half]}\n[... {left_out:,} characters ...]\n{text[-half:]}"
    end = text[len(text.rstrip()) :]
    return f"{text}[the prompt ends with {end!r}]" if end else text


def _quoted(text: str) -> str:
    return repr(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}...")


def _plan(report: CheckReport) -> Iterator[str]:
    yield "what a search scores"
    stages = report.forecast.stages
    for stage in stages:
        name = f"{stage.name}: " if len(stages) > 1 else ""
        each = count_text(stage.population, "candidate")
        if stage.generations is None:
            yield f"  {name}generations of {each}, until the hours of the budget are spent"
        else:
            count = count_text(stage.generations, "generation")
            yield f"  {name}{count} of {each} ({stage.ends})"
    for phase in report.forecast.phases:
        where = f" of {phase.stage}" if len(stages) > 1 and phase.stage else ""
        each = count_text(sum(phase.items.values()), "item")
        yield f"  {phase.phase}{where}: {_models_of(phase)} on {each} each"
    least, most = report.forecast.total_items
    unknown = any(stage.generations is None for stage in stages)
    yield f"  items in all: {_range(least, most)}" + (
        ", and those of the search" if unknown else ""
    )
    if any(phase.models[0] != phase.models[1] for phase in report.forecast.phases):
        yield "  (how many models are scored depends on the scores)"


def _models_of(phase: PhaseForecast) -> str:
    least, most = phase.models
    noun = "models" if phase.phase != "search" else "candidates"
    return f"{_range(least, most)} {noun}"


def _time(report: CheckReport) -> Iterator[str]:
    yield "time"
    timing, hours = report.timing, report.hours
    if timing is None or hours is None:
        yield "  not measured"
        return
    for task, seconds in timing.item_s.items():
        yield f"  {task}: {seconds_text(seconds)} an item ({timing.items[task]} at once)"
    yield f"  a merge: {seconds_text(timing.merge_s)}"
    least, most = hours.total
    low, high = estimate_text(3600 * least), estimate_text(3600 * most)
    spread = low if low == high else f"{low} to {high.removeprefix('about ')}"
    where = "on the cluster, on" if report.memory.node else "on this"
    by = "" if hours.workers == 1 else f" with {hours.workers} workers"
    yield f"  the whole search, selection and test included: {spread}{by} {where} {timing.device}"
    if any(stage.generations is None for stage in report.forecast.stages):
        yield "  without the search itself, which the budget limits"
    yield "  (the base's own time, multiplied; merges that answer at length take longer)"


def _memory(report: CheckReport) -> Iterator[str]:
    memory = report.memory
    yield "memory"
    routes = memory.live_bytes > memory.model_bytes
    held = "the layers of all models" if routes else "one model"
    yield (
        f"  a worker holds {held}: {size_text(memory.live_bytes)} on {memory.device}; the texts of "
        "a batch come on top"
    )
    yield f"  a merge works on one tensor of all models at a time: {size_text(memory.merge_bytes)}"
    if memory.prefix_bytes:
        yield f"  routes share hidden states: up to {size_text(memory.prefix_bytes)}"
    yield (
        f"  the files of the models have {size_text(memory.files_bytes)}; the system keeps them in "
        "memory while there is room"
    )
    yield (
        f"  on disk, beside the record: up to {size_text(memory.cache_bytes)} of results that "
        "depend on the models alone"
    )
    where = f"{memory.device} of the node {memory.node}" if memory.node else memory.device
    yield f"  {where}: {size_text(memory.device_bytes)}, {size_text(memory.free_bytes)} free now"
    if memory.needed_bytes > memory.free_bytes:
        yield (
            f"  that is less than the {size_text(memory.needed_bytes)} that the models need at "
            "least: free memory, or take a smaller compute.dtype or fewer compute.workers"
        )


def _number(count: int) -> str:
    for size, name in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.3g}{name}"
    return str(count)


def _range(least: int, most: int) -> str:
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"
