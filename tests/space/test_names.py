import pytest

from evomerge.space import short_names


@pytest.mark.parametrize(
    ("references", "names"),
    [
        (["models/a", "models/b"], ["a", "b"]),
        (["org/a@1f2e", "b"], ["a", "b"]),
        (["x/final", "y/final"], ["x/final", "y/final"]),
        (["x/run/final", "y/run/final", "z"], ["x/run/final", "y/run/final", "z"]),
        (["final", "y/final"], ["final", "y/final"]),
        (["org/a@1", "org/a@2", "b@1"], ["a@1", "a@2", "b"]),
        (["a/", "/tmp/b/"], ["a", "b"]),
    ],
)
def test_names_are_the_shortest_endings_that_differ(references, names):
    assert list(short_names(references).values()) == names


def test_taken_names_are_left_to_their_owner():
    assert short_names(["x/base"], taken={"base"}) == {"x/base": "x/base"}
    assert short_names(["base"], taken={"base"}) == {"base": "base (2)"}
