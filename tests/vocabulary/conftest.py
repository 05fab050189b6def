from __future__ import annotations

import pytest

from tests.vocabulary.models import Family, make_family


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """Shared and never changed."""
    return make_family(tmp_path_factory.mktemp("vocabularies"))
