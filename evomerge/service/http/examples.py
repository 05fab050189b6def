"""Whole examples of what is sent and of what is refused, for the OpenAPI document.

Models and tasks are those of `examples/kana`; tests send every request and provoke every refusal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evomerge.service.http.models import EXAMPLE_JOB

_MODELS = "examples/kana/models"

_RECIPE = {
    "merge_method": "task_arithmetic",
    "base_model": f"{_MODELS}/base",
    "models": [
        {"model": f"{_MODELS}/arithmetic", "parameters": {"weight": 0.6}},
        {"model": f"{_MODELS}/counting", "parameters": {"weight": 0.5}},
    ],
    "dtype": "float32",
}

_JOB_AS_TEXT = f"""name: kana
models:
  base: {_MODELS}/base
  sources: [{_MODELS}/arithmetic, {_MODELS}/counting]
objectives:
  - {{task: kana_arithmetic_en, metric: exact_match}}
  - {{task: kana_counting_ja, metric: exact_match}}
"""

REQUESTS: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "NewSearch": [
        {
            "kind": "search",
            "project": "default",
            "name": "first try",
            "priority": 5,
            "not_before": "2030-01-31T20:00:00Z",
            "max_duration_s": 7200.0,
            "retries": 2,
            "job": EXAMPLE_JOB,
            "set": {"optimizer.seed": 1},
        },
        {"kind": "search", "job": _JOB_AS_TEXT, "set": {"budget.candidates": 40}},
    ],
    "NewCheck": [{"kind": "check", "job": EXAMPLE_JOB, "within": 0.03, "timing": False}],
    "NewGrid": [
        {
            "kind": "grid",
            "name": "methods",
            "grid": {
                "name": "kana-grid",
                "models": EXAMPLE_JOB["models"],
                "held_in": [
                    {
                        "task": "kana_arithmetic_en",
                        "metric": "exact_match",
                        "expert": f"{_MODELS}/arithmetic",
                    },
                    {
                        "task": "kana_counting_ja",
                        "metric": "exact_match",
                        "expert": f"{_MODELS}/counting",
                    },
                ],
                "held_out": [{"task": "kana_comparison_en", "metric": "acc"}],
                "methods": ["linear", "task_arithmetic", "ties"],
            },
            "set": {"seeds": [0, 1]},
        }
    ],
    "NewEvaluation": [
        {
            "kind": "evaluation",
            "model": f"{_MODELS}/base",
            "job": EXAMPLE_JOB,
            "split": "validation",
        },
        {"kind": "evaluation", "recipe": _RECIPE, "job": EXAMPLE_JOB},
    ],
    "NewCalibration": [
        {
            "kind": "calibration",
            "models": [f"{_MODELS}/base", f"{_MODELS}/counting"],
            "text": "texts.jsonl",
            "inputs": False,
            "sequences": 64,
            "tokens": 256,
            "device": "cpu",
        }
    ],
    "NewExport": [
        {"trial": "g0001-i003", "verify": True, "name": "to be shipped", "priority": 10},
        {"as_adapter": True, "rank": 16},
    ],
    "JobChanges": [
        {"name": "second try", "priority": 20, "not_before": None, "max_duration_s": 3600.0}
    ],
    "Resumption": [{"set": {"budget.candidates": 80, "compute.workers": 2}}],
    "CloneRequest": [
        {"name": "another seed", "set": {"optimizer.seed": 2}, "not_before": None, "retries": 5}
    ],
    "MoveRequest": [{"before": None}],
    "Login": [{"token": "evm_the-token-that-an-admin-gave-you"}],
    "NewProject": [{"name": "vision"}],
    "NewToken": [
        {
            "name": "ci",
            "person": "ana",
            "role": "runner",
            "projects": ["default"],
            "expires": "2030-12-31T00:00:00Z",
        }
    ],
    "NewWebhook": [
        {
            "project": "default",
            "url": "https://hooks.example.com/evomerge",
            "name": "chat",
            "events": ["job.succeeded", "job.failed"],
        }
    ],
    "WebhookChanges": [
        {"url": "https://hooks.example.com/other", "events": [], "enabled": True},
        {"enabled": False},
    ],
    "Rotation": [{"overlap_s": 3600.0}],
    "NewTask": [
        {
            "upload": "ux3k5q7n2a4b6c8d",
            "name": "our_questions",
            "question": "question",
            "answer": "answer",
            "kind": "exact",
            "prompt": "Q: {question}\nA:",
            "stop": ["\n"],
            "max_tokens": 16,
            "within": 0.05,
            "keep": True,
        }
    ],
}
"""Model of a request -> examples."""


def _refusal(
    status: int, kind: str, title: str, detail: str, mend: str, **named: str
) -> dict[str, Any]:
    return {
        "type": f"urn:evomerge:{kind}",
        "title": title,
        "status": status,
        "detail": detail,
        **named,
        "mend": mend,
        "request_id": "7c1f0a525c6b95a5",
    }


PROBLEMS: Mapping[int, Mapping[str, Any]] = {
    400: _refusal(
        400,
        "unreadable",
        "Bad Request",
        "the body is not JSON: Expecting property name enclosed in double quotes at character 18",
        "send one JSON document with content-type: application/json",
    ),
    401: _refusal(
        401,
        "no-token",
        "No token that can be used",
        "no token",
        "send `Authorization: Bearer TOKEN`; an admin makes tokens with `evomerge token make`",
    ),
    403: _refusal(
        403,
        "not-allowed",
        "Not allowed",
        "the token's role is viewer; this needs runner",
        "use a token with the role runner",
    ),
    404: _refusal(
        404,
        "not-found",
        "No such thing, or it is not yours to see",
        "job: jx3k5q7n2a4b6c8d: no such job; check its id",
        "check its id",
        field="job",
        value="jx3k5q7n2a4b6c8d",
    ),
    408: _refusal(
        408,
        "slow",
        "Request Timeout",
        "no byte of the file came for 60 s",
        "send it again",
    ),
    409: _refusal(
        409,
        "conflict",
        "Not in a state for this",
        "Idempotency-Key: monday: it came with another request before; use a new key for a new job",
        "use a new key for a new job",
        field="Idempotency-Key",
        value="monday",
    ),
    413: _refusal(
        413,
        "too-large",
        "Content Too Large",
        "the body is larger than 4,194,304 bytes",
        "send less; models and data are named by their folder",
    ),
    415: _refusal(
        415,
        "media-type",
        "Unsupported Media Type",
        "Content-Type: a form, and not the file",
        "send the file itself as the body, as `curl --data-binary @FILE` does",
        field="Content-Type",
        value="multipart/form-data",
    ),
    416: _refusal(
        416,
        "range",
        "Range Not Satisfiable",
        "Range: bytes=5000-: the file has 10 bytes",
        "ask for bytes that it has, or for all of it",
        field="Range",
        value="bytes=5000-",
    ),
    421: _refusal(
        421,
        "host",
        "Not a name of this server",
        "Host: merge.example: not a name of this server",
        "call it by its own name, or let its operator add the name with --public-host",
        field="Host",
        value="merge.example",
    ),
    422: _refusal(
        422,
        "input",
        "Bad input",
        "budget.candidates: 0: below 1; give 1 or more",
        "give 1 or more",
        field="job.budget.candidates",
        value="0",
    ),
    429: _refusal(
        429,
        "limit",
        "A limit is reached",
        "owner: ana: 2 jobs of ana wait already, and 2 may; cancel one, or wait until one has "
        "begun",
        "cancel one, or wait until one has begun",
        field="owner",
        value="ana",
    ),
    503: _refusal(
        503,
        "not-ready",
        "The server cannot do this now",
        "the server's database gives no access; its log has the reason",
        "try again in some seconds; if it goes on, tell its operator the request_id",
    ),
    507: _refusal(
        507,
        "no-room",
        "The server's disk is full",
        "the server's disk has no room for it; delete uploads that are not needed, or ask the "
        "operator to make room",
        "delete uploads that are not needed, or ask the operator to make room",
    ),
}
"""Status -> an answer that refuses; its other parts are null where they are left out."""


def describe_examples(openapi: dict[str, Any]) -> None:
    """Put the examples into an OpenAPI document that has the schemas already."""
    components = openapi["components"]
    for name, examples in REQUESTS.items():
        components["schemas"][name]["examples"] = list(examples)
    components["examples"] = {
        f"Problem{status}": {"summary": problem["title"], "value": problem}
        for status, problem in PROBLEMS.items()
    }
