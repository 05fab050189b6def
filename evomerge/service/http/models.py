"""What the routes take and give. A job is the JobSpec of the Python API, in both directions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
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
from evomerge.job import JobSpec
from evomerge.service.store.audit import AuditEntry
from evomerge.service.store.jobs import Cause, Job, Kind, State, Wanted
from evomerge.service.store.people import Project, Role, Token

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


class View(BaseModel):
    """What the server answers."""

    model_config = ConfigDict(protected_namespaces=())


# Requests.


class _NewJob(Request):
    """What every kind of job has."""

    project: str | None = Field(
        default=None,
        max_length=100,
        description="Name or id of the project; the token's only project, or `default`.",
        examples=["default"],
    )
    name: str | None = Field(default=None, max_length=200, description="Shown in lists.")
    priority: int = Field(default=0, ge=-100, le=100, description="Higher ones run first.")
    not_before: AwareDatetime | None = Field(default=None, description="Do not start before this.")
    max_duration_s: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="The most seconds of one attempt."
    )
    retries: int = Field(
        default=3, ge=0, le=100, description="How often it is tried again after a failure."
    )


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


class NewCheck(_NewJob):
    """The plan of a search: every check of a job, its items, time and memory."""

    kind: Literal["check"]
    job: JobDocument = Field(examples=[EXAMPLE_JOB])
    set: Changes = {}
    within: float = Field(
        default=0.05, gt=0, lt=0.5, description="Wanted half width of a score's 95% interval."
    )
    timing: bool = Field(default=True, description="Time the base for about 20 seconds.")


class NewGrid(_NewJob):
    """A grid of merge methods by number of experts; its document is the grid file."""

    kind: Literal["grid"]
    grid: GridDocument
    set: Changes = {}


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
    device: str = Field(default="auto", max_length=100, description="auto, cpu or cuda.")
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
    name: str | None = Field(default=None, max_length=200)
    priority: int = Field(default=0, ge=-100, le=100)


class JobChanges(Request):
    """Changes of a job that has not ended; its name can always be changed."""

    name: str | None = Field(default=None, min_length=1, max_length=200)
    priority: int | None = Field(default=None, ge=-100, le=100)
    not_before: AwareDatetime | None = None
    max_duration_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    retries: int | None = Field(default=None, ge=0, le=100)


class Resumption(Request):
    """What changes when a job goes on: of a search its budget and compute."""

    set: Changes = {}


class CloneRequest(Request):
    """A copy of a job, with changes."""

    name: str | None = Field(default=None, max_length=200)
    set: Changes = {}


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


# Answers.


def moment(seconds: float | None) -> datetime | None:
    """Seconds since the epoch as a time in UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


class JobView(View):
    """A job."""

    id: str = Field(examples=["jx3k5q7n2a4b6c8d"])
    project: str = Field(description="The project's name.", examples=["default"])
    owner: str = Field(description="The person who submitted it.", examples=["ana"])
    kind: Kind
    name: str
    state: State
    wanted: Wanted = Field(description="What was asked for: a running job may be about to pause.")
    priority: int
    place: float = Field(description="Order in the queue among equal priorities.")
    not_before: datetime | None
    max_duration_s: float | None
    retries_left: int
    attempts: int
    cause: Cause | None = Field(description="Why the last attempt failed.")
    message: str | None = Field(description="The last failure in one line.")
    server: str | None = Field(description="The server whose runner has it.")
    made: datetime
    queued: datetime | None
    started: datetime | None
    ended: datetime | None
    deleted: datetime | None
    used_s: float = Field(description="Seconds of its runners so far.")
    parent: str | None = Field(description="The job that it is an export or a clone of.")
    last_event: int = Field(description="Number of its last event.")
    result: dict[str, Any] | None

    @classmethod
    def of(cls, job: Job, projects: Mapping[str, str]) -> JobView:
        """A job as the store keeps it; projects: id -> name."""
        return cls(**_facts_of(job, projects))


class JobDetail(JobView):
    """A job with what was asked for."""

    request: dict[str, Any] = Field(description="The JobSpec of a search, as it will run.")

    @classmethod
    def of(cls, job: Job, projects: Mapping[str, str]) -> JobDetail:
        """A job as the store keeps it; projects: id -> name."""
        return cls(**_facts_of(job, projects), request=dict(job.request))


def _facts_of(job: Job, projects: Mapping[str, str]) -> dict[str, Any]:
    return {
        "id": job.id,
        "project": projects.get(job.project, job.project),
        "owner": job.owner,
        "kind": job.kind,
        "name": job.name,
        "state": job.state,
        "wanted": job.wanted,
        "priority": job.priority,
        "place": job.place,
        "not_before": moment(job.not_before),
        "max_duration_s": job.max_duration_s,
        "retries_left": job.retries_left,
        "attempts": job.attempts,
        "cause": job.cause,
        "message": job.message,
        "server": job.server,
        "made": moment(job.made),
        "queued": moment(job.queued),
        "started": moment(job.started),
        "ended": moment(job.ended),
        "deleted": moment(job.deleted),
        "used_s": job.used_s,
        "parent": job.parent,
        "last_event": job.last_event,
        "result": None if job.result is None else dict(job.result),
    }


class JobPage(View):
    """Part of a list of jobs, the newest first."""

    items: list[JobView]
    cursor: str | None = Field(description="Gives the next page; null at the end.")
    total: int


class Validation(View):
    """A job that would be accepted. The checks of models and tasks are those of a `check` job."""

    name: str
    kind: Kind
    request: dict[str, Any]
    yaml: str = Field(description="The job file.")


class ProjectView(View):
    """A project."""

    id: str
    name: str
    made: datetime

    @classmethod
    def of(cls, project: Project) -> ProjectView:
        """A project as the store keeps it."""
        return cls(id=project.id, name=project.name, made=datetime.fromtimestamp(project.made, UTC))


class TokenView(View):
    """A token without its secret."""

    id: str
    name: str
    person: str
    role: Role
    projects: list[str] | None = Field(description="Names of projects; null: all.")
    made: datetime | None
    expires: datetime | None
    revoked: datetime | None
    last_used: datetime | None

    @classmethod
    def of(cls, token: Token, projects: Mapping[str, str]) -> TokenView:
        """A token as the store keeps it; projects: id -> name."""
        return cls(**_token_facts(token, projects))


class MadeToken(TokenView):
    """A new token. This is the only time that its secret is shown."""

    secret: str


def _token_facts(token: Token, projects: Mapping[str, str]) -> dict[str, Any]:
    listed = token.projects
    return {
        "id": token.id,
        "name": token.name,
        "person": token.person,
        "role": token.role,
        "projects": None if listed is None else [projects.get(each, each) for each in listed],
        "made": moment(token.made),
        "expires": moment(token.expires),
        "revoked": moment(token.revoked),
        "last_used": moment(token.last_used),
    }


def made_token(token: Token, secret: str, projects: Mapping[str, str]) -> MadeToken:
    """A new token with its secret."""
    return MadeToken(**_token_facts(token, projects), secret=secret)


class SessionView(View):
    """Who is logged in. csrf: for the header X-CSRF-Token; null where a token was sent."""

    person: str
    role: Role
    token: str = Field(description="Id of the token.")
    projects: list[str] | None
    csrf: str | None
    expires: datetime | None


class AuditView(View):
    """An act."""

    id: int
    at: datetime
    who: str
    token: str | None
    act: str = Field(examples=["job.submit"])
    what: str
    project: str | None
    address: str | None
    detail: dict[str, Any]

    @classmethod
    def of(cls, entry: AuditEntry, projects: Mapping[str, str]) -> AuditView:
        """An act as the store keeps it; projects: id -> name."""
        return cls(
            id=entry.id,
            at=datetime.fromtimestamp(entry.at, UTC),
            who=entry.who,
            token=entry.token_id,
            act=entry.act,
            what=entry.what,
            project=None if entry.project is None else projects.get(entry.project, entry.project),
            address=entry.from_address,
            detail=dict(entry.detail),
        )


class AuditPage(View):
    """Part of the audit log, the newest first."""

    items: list[AuditView]
    cursor: str | None
    total: int
