"""The sections of a job: models, objectives, evaluation, optimiser, budget, compute."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from evomerge.recipe import DType, PlainName

Aggregate = Literal["mean", "geometric", "min"]
Draws = Literal["informative", "fresh", "anchors", "fixed", "all"]
Mode = Literal["single", "pareto"]
SingleAlgorithm = Literal["cma_es", "cma_es_threshold", "cat_cma_es", "lra_cma_es", "tpe", "random"]
ParetoAlgorithm = Literal["nsga2", "como_cat_cma_es", "random"]
Algorithm = Literal[SingleAlgorithm, ParetoAlgorithm]


class Section(BaseModel):
    """Frozen, and a key that it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class ModelsSpec(Section):
    """The base model and the experts fine-tuned from it: local folders or hub ids (`@revision`).

    The base may be the only source, where routes through one model are searched.
    tokenizer: of the merged models: the base's, that of a source, or the union of all of them.
    statistics: the folder of those that `evomerge calibrate` wrote, for the methods that need them.
    """

    base: PlainName
    sources: tuple[PlainName, ...] = Field(min_length=1, max_length=8)
    tokenizer: str = "base"
    statistics: PlainName | None = None
    trust_remote_code: bool = False

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
    """A metric of an lm-eval task (`metric`, or `metric,filter` as lm-eval prints it)."""

    task: str
    metric: str
    weight: float = Field(default=1.0, ge=0.0, le=1e9)


class ConstraintSpec(Section):
    """A metric that must stay at or above `at_least`, times the score of `of` where it is given."""

    task: str
    metric: str
    at_least: float = Field(allow_inf_nan=False)
    of: Literal["base", "best_source"] | None = None


class SplitSpec(Section):
    """Shares of each task's items, by item hash; they add up to 1."""

    search: float = Field(default=0.6, gt=0.0, lt=1.0)
    validation: float = Field(default=0.2, gt=0.0, lt=1.0)
    test: float = Field(default=0.2, gt=0.0, lt=1.0)

    @model_validator(mode="after")
    def _adds_up(self) -> SplitSpec:
        total = self.search + self.validation + self.test
        if abs(total - 1.0) > 1e-6:
            raise ValueError(
                f"search + validation + test is {total:g}; make the three shares add up to 1"
            )
        return self


_ONE_DRAW: tuple[Draws, ...] = ("anchors", "fixed", "all")


class EvaluationSpec(Section):
    """How candidates are scored.

    items_per_generation: items a candidate is scored on, over all objectives and constraints
    together, evenly by task; where they grow or candidates race, at most that on the average. See
    `items_each` for `auto`.
    items_for_baselines: the same for generation zero. draws: which items: fresh ones for each
    generation, those on which candidates disagree more often (`informative`) or all alike
    (`fresh`); a weighted subset chosen once by what the baselines and the first generation answered
    (`anchors`), or any (`fixed`); or `all`. racing: stop candidates that cannot enter the better
    half, and score the others on more where there are more. growing: few items early, more as
    candidates come closer. elites: the best so far that are scored again with every generation, so
    that the best of all is better known. finalists: candidates that reach validation; of a front
    four times as many.
    """

    split: SplitSpec = SplitSpec()
    draws: Draws = "informative"
    racing: bool | Literal["auto"] = "auto"
    growing: bool = False
    elites: int = Field(default=0, ge=0, le=16)
    items_per_generation: int | Literal["auto"] = "auto"
    items_for_baselines: int = Field(default=512, ge=1)
    finalists: int = Field(default=3, ge=0, le=900)
    batch_size: int | Literal["auto"] = "auto"
    task_folders: tuple[PlainName, ...] = ()
    num_fewshot: int | None = Field(default=None, ge=0)
    apply_chat_template: bool = False

    @model_validator(mode="after")
    def _fit(self) -> EvaluationSpec:
        for field in ("growing", "elites"):
            if getattr(self, field) and self.draws in _ONE_DRAW:
                raise ValueError(
                    f"{field}: with draws: {self.draws} every generation has the same items; leave "
                    "it out, or set draws to informative or fresh"
                )
        if self.racing is True and self.draws == "anchors":
            raise ValueError(
                "racing: anchors stand for a task all together, so no part of them tells who "
                "loses; leave it out, or set draws to another kind"
            )
        return self

    @property
    def draws_afresh(self) -> bool:
        """Whether every generation has items of its own."""
        return self.draws not in _ONE_DRAW

    def items_each(self, *, genes: int, tasks: int) -> int:
        """Items of a candidate, of which `auto` is the number that measured best.

        More genes want more generations rather than more items in each of them.
        """
        if self.items_per_generation != "auto":
            return self.items_per_generation
        return max(32 if genes >= 48 else 64, 8 * tasks)

    @field_validator("batch_size", "items_per_generation")
    @classmethod
    def _positive(cls, value: int | str, info: ValidationInfo) -> int | str:
        if isinstance(value, int) and value < 1:
            what = "requests" if info.field_name == "batch_size" else "items"
            raise ValueError(f"{value} is below 1; give a number of {what}, or `auto`")
        return value


def _at_least_four(value: int | str) -> int | str:
    if isinstance(value, int) and value < 4:
        raise ValueError(f"{value} is below 4; give 4 or more candidates, or `auto`")
    return value


_Population = Annotated[int | Literal["auto"], AfterValidator(_at_least_four)]


class OptimizerSpec(Section):
    """Who proposes genomes. `sigma` is the first step size in the unit box.

    algorithm: `auto` is the one that measured best for the space: for routes, whose genes are
    mostly switches, another than for coefficients; in `mode: pareto`, another than for one score.
    """

    algorithm: Algorithm | Literal["auto"] = "auto"
    seed: int = Field(default=0, ge=0, lt=2**32)
    sigma: float = Field(default=1 / 6, gt=0.0, le=1.0)
    population: _Population = "auto"


class BudgetSpec(Section):
    """When a search ends: the first limit reached. Generations are never cut in half.

    candidates: genomes scored. hours: worker time spent on them. items: items scored by them.
    """

    candidates: int | None = Field(default=None, ge=1)
    hours: float | None = Field(default=None, gt=0.0, allow_inf_nan=False)
    items: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _some_limit(self) -> BudgetSpec:
        if self.candidates is None and self.hours is None and self.items is None:
            raise ValueError("no limit is given; set candidates, hours or items")
        return self


class ComputeSpec(Section):
    """Where candidates are built and scored, and the dtype of the merged model.

    engine: what runs the models. `auto` is transformers everywhere; vllm, where it is installed, is
    taken only by name, as it has never been run on a GPU.
    cache_gb: facts about the sources that a worker keeps beside the run. prefix_gb: hidden states
    that a worker keeps in memory for routes that begin alike; 0 computes each from the start.
    """

    engine: Literal["auto", "transformers", "vllm"] = "auto"
    device: str = "auto"
    workers: int | Literal["auto"] = "auto"
    gpus_per_worker: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] | Literal["auto"] = "auto"
    dtype: DType | Literal["auto"] = "auto"
    cache_gb: float = Field(default=4.0, ge=0.0, le=1e9)
    prefix_gb: float = Field(default=1.0, ge=0.0, le=1e9)

    @field_validator("workers")
    @classmethod
    def _some(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 1:
            raise ValueError(f"{value} is below 1; give a number of workers, or `auto`")
        return value


class StageOptimizerSpec(Section):
    """What a stage's optimiser has otherwise than the job's."""

    algorithm: Algorithm | Literal["auto"] | None = None
    sigma: float | None = Field(default=None, gt=0.0, le=1.0)
    population: _Population | None = None
