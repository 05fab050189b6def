"""To where an export may be pushed: organisations of the operator, named as the hub names them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evomerge.service.queue.exports import complete_export
from evomerge.service.settings import ServiceSettings
from evomerge.service.store.refusals import Refusal


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ServiceSettings:
    monkeypatch.setenv("HF_TOKEN", "hf_standinstandinstandin")
    return ServiceSettings(data=tmp_path, push_organisations=("acme", "Labs-1"))


@pytest.mark.parametrize(
    ("given", "kept"),
    [("acme/sums", "acme/sums"), ("ACME/Sums_2.1", "acme/Sums_2.1"), ("labs-1/x", "Labs-1/x")],
)
def test_an_organisation_is_written_as_the_operator_does(
    settings: ServiceSettings, given: str, kept: str
) -> None:
    assert complete_export({"push": given}, settings)["push"] == kept


@pytest.mark.parametrize(
    ("wanted", "field", "says"),
    [
        ({"push": "other/sums"}, "push", "not an organisation to which this service may push"),
        ({"push": "acme"}, "push", "not a name on the hub"),
        ({"push": "acme/"}, "push", "not a name on the hub"),
        ({"push": "acme/a/b"}, "push", "not a name on the hub"),
        ({"push": "acme/../other"}, "push", "not a name on the hub"),
        ({"push": "acme/sums\n"}, "push", "not a name on the hub"),
        ({"push": "http://hub.example/acme/x"}, "push", "not an organisation"),
        ({"push": "/etc/passwd"}, "push", "not an organisation"),
        ({"push": ""}, "push", "not an organisation"),
        ({"push": "acme/x", "public": True}, "public", "pushes private repositories only"),
        ({"push": None, "public": True}, "public", "nothing is pushed"),
    ],
)
def test_what_may_not_be_pushed_is_refused_with_the_mend(
    settings: ServiceSettings, wanted: dict[str, Any], field: str, says: str
) -> None:
    with pytest.raises(Refusal) as caught:
        complete_export(wanted, settings)
    assert (caught.value.field, "\n" in str(caught.value)) == (field, False)
    assert says in str(caught.value)
    assert caught.value.mend
