"""What the routes take. A job is the JobSpec of the Python API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from evomerge.grid import GridSpec
from evomerge.job import Device, JobSpec
from evomerge.service.store.people import Role

EXAMPLE_JOB: Mapping[str, Any] = {
    "name": "kana",
    "models": {
        "base": "examples/kana/models/base",
        "sources": ["examples/kana/models/arithmetic", "examples/kana/models/counting"],
    },
    "objectives": [
        {"task": "kana_arithmetic_en", "metric": "exact_match"},
        {"task": "kana_counting_ja", "metric": "exact_match"},
    ],
    "budget": {"candidates": 40},
}


Priority: TypeAlias = Annotated[int, Field(ge=-100, le=100)]
Seconds: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Retries: TypeAlias = Annotated[int, Field(ge=0, le=100)]


class _Document:
    """A document that evomerge checks itself, with the messages of the command line.

    The schema is that of the model which checks it; a text is read as YAML.
    """

    def __init__(self, of: type[BaseModel]) -> None:
        self._of = of

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.union_schema(
            [
                core_schema.dict_schema(core_schema.str_schema()),
                core_schema.str_schema(max_length=2 * 2**20),
            ],
            mode="left_to_right",
            custom_error_type="document",
            custom_error_message="not a mapping; write its keys, or give it as YAML text",
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        # pydantic refuses a reference to a schema that it has not made; see `describe_documents`.
        return {
            "anyOf": [
                {_MARK: self._of.__name__},
                {"type": "string", "description": "The same as YAML text."},
            ]
        }


_MARK = "x-document"


def describe_documents(openapi: dict[str, Any]) -> None:
    """Put the schemas of jobs and grids into an OpenAPI document, and refer to them."""
    schemas = openapi["components"]["schemas"]
    for kind in (JobSpec, GridSpec):
        made = kind.model_json_schema(ref_template="#/components/schemas/{model}")
        for name, schema in {**made.pop("$defs", {}), kind.__name__: made}.items():
            schemas.setdefault(name, schema)
    _refer(openapi)


def _refer(part: Any) -> None:
    if isinstance(part, dict):
        name = part.pop(_MARK, None)
        if name is not None:
            part["$ref"] = f"#/components/schemas/{name}"
        for each in part.values():
            _refer(each)
    elif isinstance(part, list):
        for each in part:
            _refer(each)


JobDocument: TypeAlias = Annotated[dict[str, Any] | str, _Document(JobSpec)]
GridDocument: TypeAlias = Annotated[dict[str, Any] | str, _Document(GridSpec)]


class Request(BaseModel):
    """What a client sends; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


# Requests.


Track: TypeAlias = Annotated[
    dict[
        Annotated[str, Field(max_length=100)],
        dict[Annotated[str, Field(max_length=100)], Annotated[str, Field(max_length=200)]],
    ],
    Field(
        max_length=16,
        description="Trackers in which it is shown, each with names in it; /trackers lists those "
        "that the operator allows.",
        examples=[{"tensorboard": {}, "wandb": {"project": "merges"}}],
    ),
]


class _NewJob(Request):
    """What every kind of job has."""

    project: str | None = Field(
        default=None,
        max_length=100,
        description="Name or id of the project; the token's only project, or `default`.",
        examples=["default"],
    )
    name: str | None = Field(default=None, max_length=200, description="Shown in lists.")
    priority: Priority = Field(default=0, description="Higher ones run first.")
    not_before: AwareDatetime | None = Field(default=None, description="Do not start before this.")
    max_duration_s: Seconds | None = Field(
        default=None,
        description="The most seconds that it may run, over all attempts; they count anew when "
        "a person retries or resumes it.",
    )
    retries: Retries = Field(default=3, description="How often it is tried again after a failure.")


Changes: TypeAlias = Annotated[
    dict[str, Any],
    Field(
        description="Changes by dotted keys, as `--set` of the command line.",
        examples=[{"budget.candidates": 80}],
    ),
]


class NewSearch(_NewJob):
    """A search; its job is the job file."""

    kind: Literal["search"]
    job: JobDocument = Field(examples=[EXAMPLE_JOB])
    set: Changes = {}
    track: Track = {}


class NewCheck(_NewJob):
    """The plan of a search: every check of a job, its items, time and memory."""

    kind: Literal["check"]
    job: JobDocument = Field(examples=[EXAMPLE_JOB])
    set: Changes = {}
    within: float = Field(
        default=0.05, gt=0, lt=0.5, description="Wanted half width of a score's 95% interval."
    )
    timing: bool = Field(default=True, description="Time the base for about 20 seconds.")
    devices: str | None = Field(
        default=None,
        min_length=1,
        max_length=1000,
        description="Plan the search for these devices instead, loading no model.",
        examples=["8xH100"],
    )
    prices: dict[str, float] = Field(
        default={},
        description="Price of a device for an hour, in US dollars.",
        examples=[{"H100": 2.5}],
    )


class NewGrid(_NewJob):
    """A grid of merge methods by number of experts; its document is the grid file."""

    kind: Literal["grid"]
    grid: GridDocument
    set: Changes = {}
    track: Track = {}


class NewEvaluation(_NewJob):
    """Scores of one model, or of the merge of a recipe, on the tasks of a job."""

    kind: Literal["evaluation"]
    model: str | None = Field(
        default=None,
        min_length=1,
        max_length=1000,
        description="A folder, a hub id, or `job:ID` for what an export wrote.",
        examples=["examples/kana/models/base"],
    )
    recipe: dict[str, Any] | str | None = Field(
        default=None, description="Instead of `model`: a recipe, as a mapping or as YAML text."
    )
    job: JobDocument = Field(examples=[EXAMPLE_JOB])
    set: Changes = {}
    split: Literal["search", "validation", "test"] = "test"


class NewCalibration(_NewJob):
    """Statistics of models, which the methods fisher, gradient_matching and regmean need."""

    kind: Literal["calibration"]
    models: list[str] = Field(min_length=1, max_length=16, description="Folders or hub ids.")
    text: str = Field(
        min_length=1, max_length=1000, description="UTF-8 text, or .jsonl with one text a line."
    )
    fisher: bool = True
    inputs: bool = True
    sequences: int = Field(default=128, ge=1, le=10**6)
    tokens: int = Field(default=512, ge=1, le=10**6)
    seed: int = Field(default=0, ge=0, lt=2**32)
    batch: int = Field(default=4, ge=1, le=10**4)
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: Device = Field(default="auto", description="auto, cpu, cuda or cuda:1.")
    trust_remote_code: bool = False


NewJobRequest: TypeAlias = Annotated[
    NewSearch | NewCheck | NewGrid | NewEvaluation | NewCalibration, Field(discriminator="kind")
]


class NewExport(Request):
    """What to export of a search: its winner, a point of its front, or a candidate."""

    trial: str | None = Field(
        default=None, max_length=100, description="A candidate.", examples=["g0012-i003"]
    )
    point: str | None = Field(
        default=None,
        max_length=1000,
        description="Of a front: a name, weights (`TASK=0.7,OTHER=0.3`) or bounds (`TASK>=0.9`).",
    )
    verify: bool = Field(default=False, description="Load and score the folder with stock tools.")
    as_adapter: bool = Field(default=False, description="One PEFT LoRA adapter over the base.")
    rank: int | None = Field(default=None, ge=1, le=100_000, description="Of that adapter.")
    push: str | None = Field(
        default=None,
        max_length=200,
        description="ORG/NAME: upload it to the hub too, to an organisation that /hub lists. The "
        "repository must be new, or made by an export of this project.",
        examples=["acme/kana-merge"],
    )
    public: bool = Field(default=False, description="Let everyone read what is pushed.")
    name: str | None = Field(default=None, max_length=200)
    priority: Priority = 0


class JobChanges(Request):
    """Changes of a job that has not ended; its name can always be changed."""

    name: str | None = Field(default=None, min_length=1, max_length=200)
    priority: Priority | None = None
    not_before: AwareDatetime | None = None
    max_duration_s: Seconds | None = Field(
        default=None,
        description="The most seconds that it may run since a person last queued it; it stops "
        "within seconds if it ran for longer already.",
    )
    retries: Retries | None = None


class Resumption(Request):
    """What changes when a job goes on: of a search its budget and compute."""

    set: Changes = {}
    track: Track | None = Field(
        default=None, description="Its trackers from now on; null: as before."
    )


class CloneRequest(Request):
    """A copy of a job, with changes; what is not given is as in the job that is copied."""

    name: str | None = Field(default=None, max_length=200)
    set: Changes = {}
    priority: Priority | None = Field(
        default=None, description="Higher ones run first; null: the same."
    )
    not_before: AwareDatetime | None = Field(
        default=None,
        description="Do not start before this; null: at once. Not given: the same, if it is still "
        "to come.",
    )
    max_duration_s: Seconds | None = Field(
        default=None,
        description="The most seconds that it may run, over all attempts; null: the most of this "
        "service. Not given: the same.",
    )
    retries: Retries | None = Field(
        default=None,
        description="How often it is tried again after a failure; null: as often as the copied "
        "job was to be.",
    )
    track: Track | None = Field(default=None, description="Its trackers; null: the same.")


class MoveRequest(Request):
    """A new place in the queue."""

    before: str | None = Field(
        default=None, max_length=64, description="Id of a queued job; null for the end."
    )


class Login(Request):
    """A token, for a browser's session."""

    token: str = Field(min_length=1, max_length=200, json_schema_extra={"format": "password"})


class NewProject(Request):
    """A project."""

    name: str = Field(min_length=1, max_length=100, examples=["vision"])


class NewToken(Request):
    """A token of a person."""

    name: str = Field(min_length=1, max_length=100, description="What it is for.", examples=["ci"])
    person: str = Field(min_length=1, max_length=100, examples=["ana"])
    role: Role = "viewer"
    projects: list[str] | None = Field(
        default=None, max_length=1000, description="Names or ids; null for all projects."
    )
    expires: AwareDatetime | None = Field(default=None, description="Null: never.")
