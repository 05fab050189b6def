"""What the routes say of a search's record, of files and of what a job may name."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from evomerge.service.http.views import View


class LimitView(View):
    """A limit of the budget and its used part."""

    unit: Literal["candidates", "hours", "items"]
    used: float
    most: float


class NamedScore(View):
    """A model or a candidate with its combined score; higher is better."""

    label: str
    candidate: str
    score: float
    items: int


class FailureCount(View):
    """A reason why candidates have no score."""

    reason: str
    candidates: int


class StatusView(View):
    """How far a search is, as `evomerge status --json` says it."""

    name: str
    run_dir: str = Field(description="The id of the job, which stands for its folder.")
    phase: str
    stage: dict[str, Any] | None
    generations: int
    candidates: int
    failed: int
    baselines: int
    finalists: int
    limits: list[LimitView]
    failures: list[FailureCount]
    best_candidate: NamedScore | None
    best_parent: NamedScore | None
    best_baseline: NamedScore | None
    items: int
    worker_s: float
    hops: int
    shared_hops: int
    headline: str | None
    front: list[dict[str, Any]] | None
    export: str | None
    shares: bool
    cut_answers: list[dict[str, Any]]
    cut_note: str
    warnings: list[str]
    finished: bool


class IntervalView(View):
    """A score and its interval."""

    value: float
    low: float
    high: float
    confidence: float = 0.95


class SummaryView(View):
    """Scores of a model: combined, and task -> metric -> score."""

    label: str
    role: str
    score: IntervalView
    tasks: dict[str, dict[str, IntervalView]]


class GainView(View):
    """The winner minus the best parent on the test items."""

    value: float
    low: float
    high: float
    confidence: float
    against: str
    settled: bool


class WinnerView(View):
    """The winner."""

    label: str
    candidate: str
    genome: list[float] | None
    scores: SummaryView
    recipe: str = Field(description="As YAML; mergekit reads it too.")


class PointView(View):
    """A merge on the front."""

    label: str
    role: str
    candidate: str
    genome: list[float] | None
    validation: SummaryView
    test: SummaryView
    dominates: list[str]
    surely: list[str]
    recipe: str


class OutcomeView(View):
    """The outcome of a search: a winner, or the points of a front."""

    kind: Literal["winner", "front"]
    verdict: Literal["gained", "not settled", "no gain"]
    better: bool
    headline: str
    lines: list[str] = Field(description="The outcome as the command line prints it.")
    gain: GainView | None
    models: list[SummaryView] = Field(description="All models on the test items.")
    winner: WinnerView | None
    points: list[PointView]


class ScoresView(View):
    """Test scores: a row a model; none before the search has ended."""

    models: list[SummaryView]


class CandidatesView(View):
    """Candidates in the order of generation and place, finalists first, as `trials_dataframe`.

    Besides the keys of every row there are `task/metric` with means and `gene: NAME` with values.
    """

    items: list[dict[str, Any]]
    total: int


class ItemResults(View):
    """The results of one candidate on the items of one task."""

    candidate: str = Field(examples=["g0012-i003"])
    task: str = Field(examples=["kana_arithmetic_en"])
    items: list[int] = Field(description="Numbers of the items in the task.", examples=[[3, 8]])
    metrics: dict[str, list[float]] = Field(
        description="Metric -> the values, in the order of the items.",
        examples=[{"exact_match,none": [1.0, 0.0]}],
    )


class ItemsView(View):
    """Results on items by candidate, in the order that was asked for, or of the record."""

    items: list[ItemResults]
    total: int = Field(description="Of candidates.")


class ResultView(View):
    """What a result of the Python API is made of."""

    job: str = Field(description="The job as it runs, as YAML.")
    candidates: int = Field(description="How many the optimiser has recorded.")
    outcome: dict[str, Any] | None = Field(
        description="The whole outcome as the record keeps it, with every comparison; null before "
        "the search has ended."
    )


class FigureView(View):
    """A figure of the report. spec: `data` and `layout` of plotly, colours as CSS variables."""

    title: str
    description: str
    height: int
    spec: dict[str, Any]


class FiguresView(View):
    """The figures of the report, by their place in it."""

    figures: dict[str, FigureView]


class AnswersView(View):
    """What models answered, item by item."""

    split: str
    models: list[dict[str, Any]]
    against: str | None
    counts: dict[str, int] | None
    asked: int = Field(description="Items of the task and the number, whatever changed.")
    items: list[dict[str, Any]]
    remarks: list[str]
    titles: dict[str, str] = Field(description="What some models stand for, by their labels.")
    total: int = Field(description="Items that were looked for, also by what changed.")


class LogView(View):
    """A part of what a job's processes printed. next: the offset to go on from."""

    text: str
    next: int


class FileView(View):
    """A file that can be downloaded."""

    path: str
    size_bytes: int
    sha256: str


class CommandView(View):
    """How a stock tool loads the folder of an export."""

    tool: str = Field(description="What runs it.", examples=["transformers"])
    text: str = Field(
        description="Lines of Python or of a shell, to be run beside the unpacked folder.",
        examples=['model = AutoModel.from_pretrained("export-jx3k5q7n2a4b6c8d")'],
    )


class FilesView(View):
    """The files of an export."""

    files: list[FileView]
    size_bytes: int
    folder: str = Field(
        description="The folder that the archive unpacks into.",
        examples=["export-jx3k5q7n2a4b6c8d"],
    )
    commands: list[CommandView] = Field(
        description="For its kind of model or adapter; none where its card does not say the kind."
    )


class FoundModel(View):
    """A model that a job may name."""

    reference: str
    architecture: str | None
    adapter: bool
    size_bytes: int


class FoundMetric(View):
    """A metric of a task."""

    name: str
    higher_is_better: bool
    usable: bool


class FoundTask(View):
    """A task that an objective may name."""

    name: str
    kind: str
    metrics: list[FoundMetric] | None = Field(
        default=None, description="Null: known once it is loaded."
    )
    folder: str | None = Field(
        default=None, description="What evaluation.task_folders must name; null: nothing."
    )
    project: str | None = Field(
        default=None, description="The project that it was made for; null: for all."
    )


class FoundSpace(View):
    """A search space."""

    name: str
    genes: int
    says: str


class FoundMethod(View):
    """A merge method."""

    name: str
    computes: str | None = None
    use_for: str | None = None
    searchable: bool | None = None
    package: bool = Field(description="Whether an installed package offers it.")


class Health(View):
    """Whether the server answers."""

    status: Literal["ok"] = "ok"
    version: str


class Check(View):
    """One thing that the server needs."""

    name: str
    ok: bool
    says: str = ""


class Readiness(View):
    """Whether the server can do its work."""

    ready: bool
    checks: list[Check]
