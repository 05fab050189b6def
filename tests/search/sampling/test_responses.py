"""Responses: item results as a matrix, and what stands in for the missing ones."""

from __future__ import annotations

import numpy as np
import pytest

from evomerge.evaluate.candidate import TaskItems
from evomerge.search.sampling.responses import (
    are_binary,
    check_responses,
    fill_missing,
    gather_responses,
    whole_rows,
)

NAN = float("nan")


def test_results_stand_in_the_columns_of_their_items() -> None:
    first = TaskItems(ids=(2, 5, 9), metrics={"acc": (1.0, 0.0, 1.0)})
    second = TaskItems(ids=(5, 7), metrics={"acc": (1.0, 0.25)})
    found = gather_responses([first, second], "acc", pool=(9, 5, 7))
    np.testing.assert_array_equal(found, [[1.0, 0.0, NAN], [NAN, 1.0, 0.25]])
    assert whole_rows(found).tolist() == []
    assert not are_binary(found)
    assert are_binary(found[:, :2])


def test_missing_outcomes_take_the_mean_of_model_and_item_within_the_range() -> None:
    responses = np.array([[1.0, 1.0, NAN, NAN], [0.0, 1.0, 0.0, NAN], [NAN] * 4])
    filled = fill_missing(responses)
    np.testing.assert_array_equal(filled[~np.isnan(responses)], [1.0, 1.0, 0.0, 1.0, 0.0])
    overall = 3 / 5
    assert filled[0, 2] == pytest.approx(1.0 + 0.0 - overall)
    assert filled[0, 3] == 1.0  # its own mean; nobody was scored on the item
    assert filled[1, 3] == pytest.approx(1 / 3)
    assert filled[2, 1] == 1.0
    assert filled[2, 2] == 0.0
    assert filled[2, 3] == pytest.approx(overall)


@pytest.mark.parametrize(
    ("responses", "said"),
    [
        (np.ones(3), r"shape \(3,\); give \(models, items\)"),
        (np.ones((2, 0)), r"shape \(2, 0\)"),
        (np.array([[1.0, 0.0], [NAN, NAN]]), "1 models with outcomes; give at least 2"),
        (np.array([[1.0, np.inf], [0.0, 1.0]]), "infinite outcomes"),
    ],
)
def test_a_matrix_that_cannot_be_used_is_refused(responses: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_responses(responses, models=2)
