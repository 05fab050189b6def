"""The sections of a job: models, objectives, evaluation, optimiser, budget, compute."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from evomerge.job.bounds import MOST, MOST_GPUS, MOST_ITEMS, MOST_WORKERS, Device, below_most
from evomerge.job.draws import BUILT_IN, DrawFacts, Draws, draws_problem, load_draws
from evomerge.optimize import ALGORITHMS
from evomerge.recipe import DType, PlainName
from evomerge.registry import unknown_part

Aggregate = Literal["mean", "geometric", "min"]

ANYWHERE: Mapping[str, Any] = {"parts": "of any machine"}
"""Validation context for a job that is only read: a package that it names may be missing here."""


class Section(BaseModel):
    """A part of a job: it is frozen, and an unknown key is an error.

    The text under a field is its description in the schema and in docs/job.md.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), use_attribute_docstrings=True
    )


class ModelsSpec(Section):
    """The base model and the experts fine-tuned from it."""

    base: PlainName
    """A folder, or a hub id (`org/name@revision`)."""
    sources: tuple[PlainName, ...] = Field(min_length=1, max_length=8)
    """One to eight experts of the base's architecture: folders, hub ids or adapters. For routes
    through one model, the base itself."""
    tokenizer: str = "base"
    """Tokenizer of the merged models: `base`, `union`, or one of the sources."""
    statistics: PlainName | None = None
    """The folder that `evomerge calibrate` wrote, for methods that need statistics."""
    trust_remote_code: bool = False
    """Whether a model's own code may run."""

    @model_validator(mode="after")
    def _consistent(self) -> ModelsSpec:
        twice = [name for name in self.sources if self.sources.count(name) > 1]
        if twice:
            raise ValueError(f"sources: {twice[0]} is listed twice; list each model once")
        if self.base in self.sources and len(self.sources) > 1:
            raise ValueError(f"sources: {self.base} is the base already; list only the experts")
        if self.tokenizer not in ("base", "union", *self.sources):
            raise ValueError(
                f"tokenizer: {self.tokenizer} is neither `base` nor `union` nor one of the "
                "sources; name one of those"
            )
        return self


class ObjectiveSpec(Section):
    """A metric of an lm-eval task, or of a group of tasks."""

    task: str
    """A task, group or tag of lm-eval, of `evals/`, or of a folder in `evaluation.task_folders`. A
    group counts as one objective."""
    metric: str
    """As lm-eval prints it (`acc`, `exact_match,strict-match`); it must be a mean over items."""
    weight: float = Field(default=1.0, ge=0.0, le=1e9)
    """Weight in the aggregate. With weight 0 the objective is scored but not optimised."""
    members: tuple[PlainName, ...] = ()
    """If `task` is a group or a tag: its tasks. Leave it out; evomerge writes it into the record,
    for `resume`. With tasks of your own choice, `task` is only a name for them."""
    weight_by_size: bool = False
    """With `members`: each task weighs by its number of items, else all weigh the same. The file of
    a group says which."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks to score, each once."""
        return tuple(dict.fromkeys(self.members)) or (self.task,)


class ConstraintSpec(Section):
    """A metric that must stay high: a candidate that breaks a constraint loses to one that keeps
    it."""

    task: str
    """As in an objective."""
    metric: str
    """As in an objective."""
    at_least: float = Field(allow_inf_nan=False)
    """The least score, or the least share of the score of `of`."""
    of: Literal["base", "best_source"] | None = None
    """If given, `at_least` is a share of this model's score."""
    members: tuple[PlainName, ...] = ()
    """As in an objective."""
    weight_by_size: bool = False
    """As in an objective."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks to score, each once."""
        return tuple(dict.fromkeys(self.members)) or (self.task,)


class SplitSpec(Section):
    """Shares of each task's items; they add up to 1. A hash of an item's content decides its
    part."""

    search: float = Field(default=0.6, gt=0.0, lt=1.0)
    """Items that candidates are scored on."""
    validation: float = Field(default=0.2, gt=0.0, lt=1.0)
    """Items that the winner is chosen on."""
    test: float = Field(default=0.2, gt=0.0, lt=1.0)
    """Items that the winner and every parent are scored on once, at the end."""

    @model_validator(mode="after")
    def _adds_up(self) -> SplitSpec:
        total = self.search + self.validation + self.test
        if abs(total - 1.0) > 1e-6:
            raise ValueError(
                f"search + validation + test is {total:g}; make the three shares add up to 1"
            )
        return self


class EvaluationSpec(Section):
    """How candidates are scored."""

    split: SplitSpec = SplitSpec()
    """Shares of each task's items."""
    draws: Draws = "informative"
    """Which items a generation is scored on: `informative` (fresh items, more often those on which
    candidates disagree), `fresh` (fresh items, all equally likely), `anchors` (a few items that
    represent all, chosen once from the answers of the baselines and the first generation; the score
    is a weighted mean or uses item response theory, whichever measures better), `fixed` (the same
    few items, drawn once), `all`; or [one of your
    own](extending.md#your-own-way-to-draw-items), of an installed package."""
    racing: bool | Literal["auto"] = "auto"
    """Stop candidates that are surely not in the better half, and score the others on more items if
    there are more. `auto`: yes in mode `single`, except with `anchors`."""
    growing: bool = False
    """Use fewer items while candidates differ much, and more items as they come closer, by the
    measured noise."""
    elites: int = Field(default=0, ge=0, le=16)
    """How many of the best candidates so far are scored again with every generation, so that their
    scores become more exact."""
    items_per_generation: int | Literal["auto"] = "auto"
    """Items of a candidate, over all objectives and constraints together, evenly by task. With
    `growing` or `racing` it is the most on average. `auto`: 64, or 32 from 48 genes on, and at
    least 8 for each task."""
    items_for_baselines: int = Field(default=512, ge=1, le=MOST)
    """Items of each baseline (with `anchors` all search items, also for the first generation)."""
    finalists: int = Field(default=3, ge=0, le=900)
    """How many of the best candidates reach validation; four times as many for a front."""
    batch_size: int | Literal["auto"] = "auto"
    """Requests in a padded batch, as in lm-eval; or `auto`, which computes common beginnings of
    texts once and packs the rest without padding."""
    task_folders: tuple[PlainName, ...] = ()
    """Folders with your own lm-eval task files. They are code, so only folders that you name are
    read. `resume` and `export` of a search that another user started need `--trust-code`."""
    num_fewshot: int | None = Field(default=None, ge=0, le=1000)
    """As in lm-eval; items that are used as few-shot examples are not scored. Without it: the
    task's own number."""
    apply_chat_template: bool = False
    """As in lm-eval."""

    @field_validator("draws")
    @classmethod
    def _known(cls, name: str, info: ValidationInfo) -> str:
        problem = None if info.context is ANYWHERE else draws_problem(name)
        if problem is not None:
            raise ValueError(problem)
        return name

    @model_validator(mode="after")
    def _fit(self) -> EvaluationSpec:
        if self.draws in BUILT_IN:
            self.refuse_unfit()
        return self

    def refuse_unfit(self) -> None:
        """Raise ValueError for settings that do not fit the way to draw; a package is imported."""
        for field in ("growing", "elites"):
            if getattr(self, field) and not self.draws_afresh:
                raise ValueError(
                    f"{field}: with draws: {self.draws} every generation has the same items; leave "
                    "it out, or set draws to informative or fresh"
                )
        if self.racing is True and self.draw_facts.whole_only:
            raise ValueError(
                f"racing: {self.draws} give a score only all together, so no candidate can be "
                "stopped early; leave it out, or set draws to another kind"
            )

    @property
    def draw_facts(self) -> DrawFacts:
        """The facts on the way to draw. Raises JobError if its package cannot be used."""
        return load_draws(self.draws)

    @property
    def draws_afresh(self) -> bool:
        """Whether every generation has its own items."""
        return not self.draw_facts.same_items

    def items_each(self, *, genes: int, tasks: int) -> int:
        """Items of a candidate; `auto` gives the number that measured best.

        With more genes, more generations help more than more items in each of them.
        """
        if self.items_per_generation != "auto":
            return self.items_per_generation
        return max(32 if genes >= 48 else 64, 8 * tasks)

    @field_validator("batch_size", "items_per_generation")
    @classmethod
    def _positive(cls, value: int | str, info: ValidationInfo) -> int | str:
        if isinstance(value, int) and value < 1:
            noun = "requests" if info.field_name == "batch_size" else "items"
            raise ValueError(f"{value} is below 1; give a number of {noun}, or `auto`")
        return below_most(value)


def _at_least_four(value: int | str) -> int | str:
    if isinstance(value, int) and value < 4:
        raise ValueError(f"{value} is below 4; give 4 or more candidates, or `auto`")
    return below_most(value)


_Population = Annotated[int | Literal["auto"], AfterValidator(_at_least_four)]


def _known_algorithm(name: str, info: ValidationInfo) -> str:
    if name == "auto" or name in ALGORITHMS or info.context is ANYWHERE:
        return name
    near = difflib.get_close_matches(name, ["auto", *ALGORITHMS], n=1)
    mend = f"did you mean {near[0]}?" if near else f"write auto or one of {', '.join(ALGORITHMS)}"
    raise ValueError(
        f"{name or 'nothing'} is not an optimiser of evomerge or of an installed package; {mend}"
    )


_AlgorithmName = Annotated[str, AfterValidator(_known_algorithm)]


class OptimizerSpec(Section):
    """The optimiser, which proposes genomes."""

    algorithm: _AlgorithmName = "auto"
    """One of the optimisers below, or one of an installed package. `auto` is the one that measured
    best: `cma_es` for few weights, `lra_cma_es` for 16 to 500, `cma_es` with halved learning rates
    above 500, `cat_cma_es` for routes; for fronts, `como_cat_cma_es` with two objectives and
    `nsga2` with more."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of all random draws: the same job and seed give the same search."""
    sigma: float = Field(default=1 / 6, gt=0.0, le=1.0)
    """The first step size, in the unit box."""
    population: _Population = "auto"
    """Candidates in a generation. `auto`: 4 + ⌊3 ln n⌋ for n genes (`cma_es`: twice that for 16
    weights or more)."""


class BudgetSpec(Section):
    """When a search ends: at the first limit that it reaches. A generation that would not fit
    completely is not started. Give at least one limit."""

    candidates: int | None = Field(default=None, ge=1, le=MOST)
    """Genomes scored."""
    hours: float | None = Field(default=None, gt=0.0, le=1e6)
    """Worker time spent on the candidates."""
    items: int | None = Field(default=None, ge=1, le=MOST_ITEMS)
    """Items scored for the candidates."""

    @model_validator(mode="after")
    def _some_limit(self) -> BudgetSpec:
        if self.candidates is None and self.hours is None and self.items is None:
            raise ValueError("no limit is given; set candidates, hours or items")
        return self


BuiltInEngine = Literal["auto", "transformers", "vllm"]
ENGINES_GROUP = "evomerge.engines"
"""The group of entry points with which installed packages add engines."""


def engine_problem(name: str) -> str | None:
    """Why a name is not an engine, and the mend; None if it is one."""
    return unknown_part(name, kind="engine", built_in=get_args(BuiltInEngine), group=ENGINES_GROUP)


def _an_engine(name: str, info: ValidationInfo) -> str:
    problem = None if info.context is ANYWHERE else engine_problem(name)
    if problem is not None:
        raise ValueError(problem)
    return name


_Engine = Annotated[
    str,
    AfterValidator(_an_engine),
    WithJsonSchema(
        {"anyOf": [{"enum": list(get_args(BuiltInEngine)), "type": "string"}, {"type": "string"}]}
    ),
]


class ComputeSpec(Section):
    """Where candidates are built and scored, and the dtype of the merged model."""

    engine: _Engine = "auto"
    """What runs the models. `auto` is always transformers. `vllm` must be named and installed; it
    has never been run on a GPU. Any other name is an engine of an installed package."""
    device: Device = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1`."""
    workers: int | Literal["auto"] = "auto"
    """Processes that score candidates; two or more are Ray actors (extra `ray`). `auto`: one, or
    one for each GPU."""
    gpus_per_worker: Annotated[float, Field(gt=0.0, le=MOST_GPUS)] | Literal["auto"] = "auto"
    """Share of a GPU that a worker takes. `auto`: 1 on a GPU."""
    dtype: DType | Literal["auto"] = "auto"
    """dtype of the merged model. `auto`: that of the base."""
    cache_gb: float = Field(default=4.0, ge=0.0, le=1e9)
    """How much a worker may keep on disk of results that depend only on the sources, for example
    sorted magnitudes (`RUN_DIR/facts`; may be deleted at any time)."""
    prefix_gb: float = Field(default=1.0, ge=0.0, le=1e9)
    """How much memory a worker may use for hidden states that routes with the same beginning share;
    0 computes each route from the start."""

    @field_validator("workers")
    @classmethod
    def _some(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 1:
            raise ValueError(f"{value} is below 1; give a number of workers, or `auto`")
        return below_most(value, MOST_WORKERS)


class StageOptimizerSpec(Section):
    """Settings of a stage's optimiser that differ from the job's."""

    algorithm: _AlgorithmName | None = None
    """As in `optimizer`."""
    sigma: float | None = Field(default=None, gt=0.0, le=1.0)
    """As in `optimizer`."""
    population: _Population | None = None
    """As in `optimizer`."""


# The place of a job's record: in its run directory, or in a PostgreSQL database.


_URL = re.compile(
    r"(?P<scheme>[\w+]+)://"
    r"(?:(?P<user>[^:/]*)(?::(?P<password>[^@]*))?@)?"
    r"(?P<server>[^/?]*)(?:/(?P<database>[^?]*))?(?:\?(?P<query>.*))?$",
    re.DOTALL,
)
"""The parts of a URL as SQLAlchemy 2.1 splits it."""

_SCHEMES = ("postgresql", "postgresql+psycopg")
_SECRET_OPTIONS = re.compile(r"(?i)(?:^|&)(password|sslpassword)=")


def _check(place: str) -> str:
    if place == "auto":
        return place
    found = _URL.match(place)
    if found is None or found["scheme"] not in _SCHEMES:
        raise ValueError(
            "not a place for a record; write `auto`, which keeps it in the run directory, or "
            "postgresql://USER@HOST/DATABASE"
        )
    if found["password"] or _SECRET_OPTIONS.search(found["query"] or ""):
        raise ValueError(
            "the URL has a password, and every reader of the record or the report would see it; "
            "leave it out, and give it in the environment as PGPASSWORD, or in ~/.pgpass"
        )
    return place


RecordPlace = Annotated[str, AfterValidator(_check)]
"""`auto`, or the URL of a PostgreSQL database without a password."""
