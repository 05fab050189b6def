"""What every test shares."""

from __future__ import annotations

import gc
import os
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

from evomerge.startup import begin_loading, end_loading
from tests.forkserver import ADDRESS

# Ray's workers give way to everything else on the machine, here to the other tests.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112

# A busy machine may take seconds for what takes milliseconds; that is no failure of a property.
settings.register_profile("evomerge", deadline=None)
settings.load_profile("evomerge")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--faults", action="store_true", help="kill at many more instants than CI has time for"
    )
    parser.addoption(
        "--trackers", action="store_true", help="fail where a tracker is not installed"
    )


MEMORY = "/dev/shm"
ROOM = 6 << 30
"""Bytes that are to be free there; what a test that passed wrote is removed at once."""


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    # A record waits for the disk after each trial, half of what a search takes where models are
    # tiny. What a kill leaves behind is the same in memory: only a loss of power tells them apart.
    if config.option.basetemp is None and has_room(MEMORY):
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", MEMORY)
    if config.getoption("--faults"):
        config.option.timeout = 3600
    begin_loading()  # until the tests are collected; a third of that was looking for garbage
    _begin_caches(config)


_CACHES = pytest.StashKey[tuple[str, str]]()


def _begin_caches(config: pytest.Config) -> None:
    """Folders of this process for what libraries and commands keep, empty, and gone at its end."""
    # Code that models bring is copied there by the name of their folder, which tests that run at
    # the same time may share.
    modules = os.environ["HF_MODULES_CACHE"] = tempfile.mkdtemp(prefix="modules-")
    # Nothing that was kept before a change, and nothing of a test, is found again.
    cache = os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="cache-")
    config.stash[_CACHES] = (modules, cache)
    if (loaded := sys.modules.get("transformers.dynamic_module_utils")) is not None:
        loaded.HF_MODULES_CACHE = modules  # read before this process was forked


def pytest_unconfigure(config: pytest.Config) -> None:
    for folder in config.stash.get(_CACHES, ()):
        shutil.rmtree(folder, ignore_errors=True)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config, specs: list[Any]) -> None:
    """The processes of pytest-xdist are forked from one that has collected the tests."""
    import execnet

    from tests.processes import ROOT, begin_forkserver

    os.environ[ADDRESS] = begin_forkserver(config.args)
    python = shlex.join((sys.executable, "-S", str(ROOT / "tests" / "forked_python.py")))
    specs[:] = [execnet.XSpec(f"{spec}//python={python}") for spec in specs]


def has_room(folder: str) -> bool:
    """Whether tests may write there as they would to a disk, and run what they wrote."""
    try:
        mounted = os.statvfs(folder)
    except OSError:
        return False
    closed = mounted.f_flag & (os.ST_RDONLY | os.ST_NOEXEC) or not os.access(folder, os.W_OK)
    return not closed and shutil.disk_usage(folder).free >= ROOM


HEADS = (
    ("service/page/",),  # they share a browser, a server and searches
    (
        "test_cluster_process.py",
        "test_ray_pool.py",
        "client/test_real_server.py",
        "test_notebook.py",
    ),
    ("runner/test_kills.py", "runner/test_supervisor.py", "search/test_pareto.py"),
    ("search/test_resume.py", "tests/test_docs.py", "cli/test_cli.py", "grid/test_resume.py"),
)
"""What takes long, mostly by waiting: what each process of pytest-xdist begins with."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deal the long tests to the processes, so that none of these has them all, or last.

    Each process is given a run of the items, as equal in number as can be, and those that end
    early take from the end of others' runs. The rest begins with what compiles the merge kernels,
    so that few processes do it.
    """
    count = getattr(config, "workerinput", {}).get("workercount", 1)
    heads: list[list[pytest.Item]] = [[] for _ in range(count)]
    rest: list[pytest.Item] = []
    for item in items:
        path = item.path.as_posix()
        head = next((n for n, names in enumerate(HEADS) if any(name in path for name in names)), -1)
        (rest if head < 0 else heads[head % count]).append(item)
    rest.sort(key=lambda item: "merge" not in item.path.parts)
    dealt: list[pytest.Item] = []
    for place, head_items in enumerate(heads):
        share = (len(items) - len(dealt)) // (count - place)
        taken = max(0, share - len(head_items))
        dealt += head_items + rest[:taken]
        del rest[:taken]
    items[:] = dealt + rest


@pytest.fixture
def faults(request: pytest.FixtureRequest) -> bool:
    """Whether faults are to be planted at many instants, or at some of each kind."""
    return bool(request.config.getoption("--faults"))


@pytest.fixture(autouse=True, scope="session")
def _state_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What marks a user's searches is kept apart from that of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(autouse=True, scope="session")
def _signals_are_heard() -> None:
    """Also where a shell runs the tests in its background, or nohup does: both ignore signals."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    for number, handler in usual.items():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture(autouse=True, scope="session")
def _machine_is_not_described() -> Iterator[None]:
    """lm-eval does with everything that it scores, by a dozen commands that take a second."""
    with pytest.MonkeyPatch.context() as patch:
        if "torch" in sys.modules:
            patch.setattr("torch.utils.collect_env.get_pretty_env_info", str)
        yield


@pytest.fixture(autouse=True, scope="session")
def _migrations_are_read_once() -> None:
    if "optuna" in sys.modules:
        from tests.migrations import read_once

        read_once()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """What was loaded and collected is no garbage.

    Else each collection looks through the million objects of the libraries, half a second.
    Collections are rarer than Python's own, too: they were a tenth of the tests' processor time.
    """
    end_loading()
    gc.set_threshold(20_000, 20, 50)
