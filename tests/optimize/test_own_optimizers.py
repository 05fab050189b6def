"""An optimiser of an installed package is one like evomerge's own."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import evomerge
from evomerge.job import OptimizerSpec, parse_job
from evomerge.optimize import ALGORITHMS, choose_population, make_optimizer
from evomerge.optimize.registry import BUILT_IN
from evomerge.search.events import Event, Progress
from evomerge.search.ledger import Ledger
from evomerge.search.run import run_job
from evomerge.study import ALGORITHMS as ALGORITHM_NOTE
from evomerge.study import FACTS, create_study, read_study
from evomerge.workers.preparation.preparation import prepare
from tests.optimize.contract import Contract
from tests.own_parts import installed, installed_example, write_metadata
from tests.search.jobs import LightPool, job_document, write_models

NAME = "self_adaptation"


@pytest.fixture(scope="module", autouse=True)
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with installed_example("own_optimizer", tmp_path_factory.mktemp("site")):
        yield


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


@pytest.fixture
def algorithm() -> str:
    return NAME


@pytest.fixture
def learner() -> str:
    return NAME


class TestExample(Contract):
    """The optimiser of examples/own_optimizer."""


def document(models: Path, **optimizer: Any) -> dict[str, Any]:
    own = {"algorithm": NAME, "seed": 3, "population": 4, **optimizer}
    return job_document(models, optimizer=own, budget={"candidates": 12})


def genomes(run_dir: Path) -> list[object]:
    with read_study(run_dir) as study:
        return [(trial.key, trial.genome, trial.score) for trial in study.trials]


class StopError(Exception):
    """Raised to end a search in its midst."""


def test_a_search_that_is_interrupted_goes_on_to_the_same_trials(
    models: Path, tmp_path: Path
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    evomerge.search(document(models), whole)

    def interrupt(event: Event) -> None:
        if isinstance(event, Progress) and (event.step, event.candidate.generation) == ("told", 1):
            raise StopError

    with pytest.raises(StopError):
        evomerge.search(document(models), parts, observe=interrupt)
    assert 0 < len(genomes(parts)) < len(genomes(whole))
    evomerge.resume(parts)
    assert genomes(parts) == genomes(whole)
    with read_study(whole) as study:
        assert len(study.trials_of("genome")) == 12
        assert study.noted(ALGORITHM_NOTE) == {"0": NAME}
        facts = study.noted(FACTS)
    assert facts is not None
    said = facts["versions"][f"algorithm {NAME}"]
    make = ALGORITHMS[NAME].single
    assert make is not None
    digest = hashlib.sha256(Path(inspect.getfile(make)).read_bytes()).hexdigest()
    assert said == f"evomerge-self-adaptation 1.0 (sha256 {digest[:12]})"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("self_adaption", "self_adaption is not an optimiser .*; did you mean self_adaptation?"),
        ("cma", "cma is not an optimiser .*; did you mean cma_es?"),
        (
            "gradients",
            "gradients is not an optimiser .*; write auto or one of cma_es, .*, random, self_",
        ),
        ("", "optimizer.algorithm: nothing is not an optimiser"),
        (3, "optimizer.algorithm: 3: not a text"),
    ],
)
def test_a_name_that_is_none_is_refused_with_those_that_are(
    models: Path, tmp_path: Path, name: object, said: str
) -> None:
    refused = refusal(document(models, algorithm=name), tmp_path)
    assert re.search(said, refused), refused


def refusal(job: dict[str, Any], tmp_path: Path) -> str:
    """The one line that a search is refused with, or ends with."""
    with pytest.raises(evomerge.InputError) as refused:
        evomerge.search(job, tmp_path / "run")
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_what_a_job_says_is_checked_without_importing_the_package(models: Path) -> None:
    ALGORITHMS.forget()
    parse_job(yaml.safe_dump(document(models)), where="job.yaml")
    assert ALGORITHMS.versions() == {}


def test_it_is_refused_where_it_is_not_for_several_objectives(models: Path, tmp_path: Path) -> None:
    job = {**document(models), "mode": "pareto"}
    assert refusal(job, tmp_path) == (
        "optimizer.algorithm: self_adaptation is not for mode: pareto; write auto or one of nsga2, "
        "como_cat_cma_es, random"
    )
    assert not (tmp_path / "run").exists()


PACKAGE = """
import numpy as np
from evomerge.optimize import Algorithm

class Own:
    mean = None
    stop = None
    def __init__(self, *, population, binary, seed, objectives=1, **settings):
        self.population = population
        self.shape = population, binary.size
        self.generator = np.random.default_rng(seed)
    def ask(self):
        return self.generator.random(self.shape)
    def tell(self, *told):
        pass

{changes}
OWN = Algorithm(name="own", single=Own, pareto=Own{limits})
"""


@contextlib.contextmanager
def package(site: Path, *, changes: str = "", limits: str = "") -> Iterator[None]:
    """An optimiser `own` of a package, with some of it otherwise."""
    points = {"own": "own_part:OWN", "cma_es": "own_part:OWN"}
    write_metadata(site, "own", "2.0", {ALGORITHMS.group: points})
    (site / "own_part.py").write_text(PACKAGE.format(changes=changes, limits=limits))
    with installed(site):
        yield


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ("raise ImportError('no library')", r"own, of own 2.0, cannot be imported \(no library\)"),
        ("Algorithm = dict", "own, of own 2.0: own_part:OWN is no evomerge.optimize.Algorithm of"),
    ],
)
def test_a_package_that_cannot_be_used_is_named_before_a_search_begins(
    models: Path, tmp_path: Path, changes: str, words: str
) -> None:
    with package(tmp_path / "site", changes=changes):
        assert ALGORITHMS["cma_es"] is BUILT_IN["cma_es"], "ours keeps its name"
        assert re.search(words, refusal(document(models, algorithm="own"), tmp_path))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("limits", "mode", "said"),
    [
        (
            ", least_population=6",
            "single",
            "optimizer.population: 4 is below 6, the least for own; give more, or write cma_es",
        ),
        (
            ", objectives=3",
            "pareto",
            "optimizer.algorithm: own is for 3 objectives, not 2; write nsga2",
        ),
    ],
)
def test_its_limits_are_its_own(
    models: Path, tmp_path: Path, limits: str, mode: str, said: str
) -> None:
    with package(tmp_path / "site", limits=limits):
        job = {**document(models, algorithm="own"), "mode": mode}
        assert refusal(job, tmp_path) == said
    assert not (tmp_path / "run").exists()


def test_its_population_is_its_own(tmp_path: Path) -> None:
    limits = ", population=lambda genes, switches: 10 * genes + switches, least_population=15"
    with package(tmp_path / "site", limits=limits):
        own = OptimizerSpec(algorithm="own")
        for n, population in ((1, 15), (3, 31)):
            binary = np.arange(n) < 1
            assert choose_population(own, binary) == population
            assert (
                make_optimizer(own, start=np.full(n, 0.5), binary=binary).population == population
            )
        named = OptimizerSpec(algorithm="own", population=20)
        assert choose_population(named, np.zeros(3, bool)) == 20


@pytest.mark.parametrize(
    ("population", "words"),
    [
        ("0, least_population=0", "is 0, not a"),
        ("'ten'", "its population failed"),
        ("1 / 0", "Zero"),
    ],
)
def test_a_population_that_is_none_is_refused_in_a_line(
    tmp_path: Path, population: str, words: str
) -> None:
    limits = f", population=lambda genes, switches: {population}"
    with package(tmp_path / "site", limits=limits), pytest.raises(evomerge.JobError, match=words):
        choose_population(OptimizerSpec(algorithm="own"), np.zeros(3, bool))


def test_a_record_whose_optimiser_is_gone_is_no_traceback(models: Path, tmp_path: Path) -> None:
    with package(tmp_path / "site"):
        evomerge.search(document(models, algorithm="own"), tmp_path / "run")
    assert evomerge.open_run(tmp_path / "run").finished
    for again in (evomerge.resume, lambda run: evomerge.export(run, tmp_path / "out")):
        with pytest.raises(evomerge.JobError, match="own"):
            again(tmp_path / "run")


WRONG = {
    "outside": (
        "Own.ask = lambda own: np.full(own.shape, 1.5)",
        r"own: it asked for a genome with the gene 1.5, outside \[0, 1\]",
    ),
    "not a number": (
        "Own.ask = lambda own: np.full(own.shape, np.nan)",
        r"own: it asked for a genome with the gene nan, outside \[0, 1\]",
    ),
    "another shape": (
        "Own.ask = lambda own: np.zeros((3, 2))",
        r"own: it asked for genomes of shape \(3, 2\), not \(4, \d+\)",
    ),
    "no genomes": ("Own.ask = lambda own: 'x'", "own: its ask failed .ValueError: could not"),
    "ask raises": ("Own.ask = lambda own: 1 / 0", "own: its ask failed .ZeroDivisionError: div"),
    "tell raises": ("Own.tell = lambda own: 0", "own: its tell failed .TypeError: .*lambda"),
    "another maker": ("Own = lambda: None", "own: it cannot be made .TypeError: .*lambda"),
    "stop is no text": ("Own.stop = True", "own: its stop is of type bool, not text or None"),
    "no stop": ("del Own.stop", "own: its stop failed .AttributeError"),
}


@pytest.mark.parametrize("mode", ["single", "pareto"])
@pytest.mark.parametrize("wrong", WRONG)
def test_one_that_misbehaves_ends_the_search_in_a_line(
    models: Path, tmp_path: Path, wrong: str, mode: str
) -> None:
    changes, words = WRONG[wrong]
    with package(tmp_path / "site", changes=changes):
        said = refused_by_search(models, mode, tmp_path)
    assert re.search(words, said), said
    assert said.endswith("; mend the package that offers it, or write auto")


@pytest.mark.parametrize(
    ("mean", "words"),
    [
        ("np.zeros(1)", r"its mean has shape \(1,\), not"),
        ("np.full(own.shape[1], -0.5)", r"its mean has the gene -0.5, outside"),
        ("1 / 0", "its mean failed .ZeroDivisionError"),
    ],
)
def test_a_mean_that_is_none_ends_the_search_in_a_line(
    models: Path, tmp_path: Path, mean: str, words: str
) -> None:
    with package(tmp_path / "site", changes=f"Own.mean = property(lambda own: {mean})"):
        assert re.search(words, refused_by_search(models, "single", tmp_path))


def refused_by_search(models: Path, mode: str, tmp_path: Path) -> str:
    """The one line that a search ends with, its candidates scored without a model."""
    job = {**document(models, algorithm="own"), "mode": mode}
    preparation = prepare(parse_job(yaml.safe_dump(job), where="job.yaml"))
    directions = preparation.objective.directions
    with (
        create_study(tmp_path / "run", preparation.job, directions=directions) as study,
        LightPool() as pool,
        pytest.raises(evomerge.JobError) as refused,
    ):
        run_job(Ledger(preparation=preparation, study=study, pool=pool))
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("mode", ["single", "pareto"])
def test_one_that_behaves_is_searched_by_in_both_modes(
    models: Path, tmp_path: Path, mode: str
) -> None:
    with package(tmp_path / "site"):
        job = {**document(models, algorithm="own"), "mode": mode}
        preparation = prepare(parse_job(yaml.safe_dump(job), where="job.yaml"))
        directions = preparation.objective.directions
        with (
            create_study(tmp_path / "run", preparation.job, directions=directions) as study,
            LightPool() as pool,
        ):
            run_job(Ledger(preparation=preparation, study=study, pool=pool))
            assert len(study.trials_of("genome")) == 12


def test_that_the_machine_ran_short_is_not_its_fault(tmp_path: Path) -> None:
    with package(tmp_path / "site", changes="def ask(own): raise MemoryError\nOwn.ask = ask"):
        optimizer = make_optimizer(OptimizerSpec(algorithm="own"), start=np.zeros(2))
        with pytest.raises(MemoryError):
            optimizer.ask()
