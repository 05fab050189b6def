"""The values of the figure of a search, for pages that draw it themselves."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from evomerge.report.html import parts_of
from evomerge.report.search_series import population_series, series_of
from evomerge.study import Study, read_study

RECORDS = Path(__file__).parents[1] / "fixtures" / "records_0_1"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    folder = tmp_path_factory.mktemp("record")
    with tarfile.open(RECORDS / "weights.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    with read_study(folder / "weights") as opened:
        yield opened


def test_the_series_are_what_the_report_draws(study: Study) -> None:
    search = series_of(study)["search"]
    drawn = parts_of(study, structure=None)["search"].spec["data"]
    lines, (dots, crosses, best, mean) = drawn[:-4], drawn[-4:]
    assert [line["score"] for line in search["lines"]] == [trace["y"][0] for trace in lines]
    assert [dot["place"] for dot in search["dots"]] == list(dots["x"])
    assert [dot["height"] for dot in search["dots"]] == list(dots["y"])
    assert [cross["place"] for cross in search["crosses"]] == list(crosses["x"])
    assert [each["best_height"] for each in search["generations"]] == list(best["y"])
    assert [each["mean_height"] for each in search["generations"]] == list(mean["y"])


def test_every_baseline_has_an_interval_around_its_score(study: Study) -> None:
    lines = series_of(study)["search"]["lines"]
    assert lines
    for line in lines:
        assert line["interval"]["low"] <= line["interval"]["value"] <= line["interval"]["high"]
        assert line["interval"]["value"] == pytest.approx(line["score"])


def test_the_series_are_plain_values(study: Study) -> None:
    found = series_of(study)
    assert json.loads(json.dumps(found))["search"]["shares"] == found["search"]["shares"]


def test_the_map_keeps_the_distances_of_two_genes_and_the_means_are_of_each_generation(
    study: Study,
) -> None:
    genomes = study.trials_of("genome")
    found = population_series(genomes)
    assert found is not None
    genes = np.array([list(trial.parameters.values()) for trial in genomes])
    numbers = np.array([trial.key.generation for trial in genomes])
    for column, number in enumerate(found.generations):
        means = [row[column] for row in found.means]
        assert means == pytest.approx(genes[numbers == number].mean(axis=0), abs=1e-6)
    points = np.array([found.x, found.y]).T
    whole = np.array([trial.genome for trial in genomes])
    apart = np.linalg.norm(whole[0] - whole[1])
    assert np.linalg.norm(points[0] - points[1]) <= apart + 1e-4
    assert 0.0 < found.shares[1] <= found.shares[0] <= 1.0
    assert population_series(genomes[:1]) is None
