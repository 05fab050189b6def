"""The family of tiny models that all rehearsals share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.devices.rehearsal import Rehearsal
from tests.devices.scenes import Family, make_family


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return make_family(tmp_path_factory.mktemp("family"))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def device() -> Iterator[Rehearsal]:
    with Rehearsal() as rehearsal:
        yield rehearsal
