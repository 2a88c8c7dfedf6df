"""Fixtures of all tests: options, data that may be absent, and a pool of two gloo processes."""

import contextlib
import os
import pathlib
import queue
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from typing import Any

if "PYTEST_XDIST_WORKER" in os.environ:  # several test processes: threads of each would wait for those of the others
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from lit_dense.assigners import ASSIGNERS
from lit_dense.box_losses import BOX_LOSSES
from lit_dense.functional import plain_path
from lit_dense.losses import LOSSES
from lit_dense.normalizers import NORMALIZERS
from lit_dense.weighters import WEIGHTERS

SHARED = pathlib.Path(__file__).parents[2] / "shared" / "data"
WORLD_SIZE = 2

hypothesis.settings.register_profile(
    "busy machines", deadline=None, max_examples=50, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy machines")

collect_ignore = ["plugins"]  # packages of their own, which the tests install


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run the tests that take minutes")
    parser.addoption(
        "--no-fast-paths",
        action="store_true",
        help="compute what can be done either way as torchvision and autograd do",
    )


def pytest_collection_modifyitems(config, items):
    for item in items:
        if item.get_closest_marker("slow") and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason="slow: run with --slow"))
        if item.get_closest_marker("fast_paths") and config.getoption("--no-fast-paths"):
            item.add_marker(pytest.mark.skip(reason="of the fast paths themselves"))
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
        if item.get_closest_marker("shared_data") and not SHARED.is_dir():
            item.add_marker(pytest.mark.skip(reason=f"needs {SHARED}"))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
    torch.set_flush_denormal(False)  # what torch 2.4 compiles turns it on as it is loaded


@pytest.fixture(autouse=True)
def _paths(request):
    with no_fast_paths() if request.config.getoption("--no-fast-paths") else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def no_fast_paths() -> Iterator[None]:
    """Losses by autograd; head outputs, matching, anchors and post-processing by torchvision."""
    with pytest.MonkeyPatch.context() as patched, plain_path():
        patched.setattr("lit_dense.detectors.retinanet.RetinaNetAdapter.accelerate", lambda adapter: None)
        patched.setattr(
            "lit_dense.detectors.retinanet.fast_methods.tower_outputs", lambda tower, features: tower(features)
        )
        yield


@pytest.fixture(scope="session")
def bccd() -> pathlib.Path:
    """The folder of the blood-cell data set."""
    return SHARED / "bccd"


def _worker(rank: int, store: str, tasks: Any, results: Any, fast: bool) -> None:
    with contextlib.nullcontext() if fast else no_fast_paths():
        _work(rank, store, tasks, results)


def _work(rank: int, store: str, tasks: Any, results: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=WORLD_SIZE)
    results.put((True, "ready"))
    while (task := tasks.get()) is not None:
        function, args = task
        torch.manual_seed(0)
        try:
            results.put((True, function(rank, *args)))
        except Exception:  # reported in the test's own process
            results.put((False, traceback.format_exc()))
    dist.destroy_process_group()


class Pool:
    """Two processes in one gloo group that run a function each time they are called."""

    def __init__(self, fast: bool) -> None:
        self.fast = fast
        self.start()

    def start(self) -> None:
        """Start the processes, and wait until they have imported torch, which takes minutes on a busy machine."""
        context = mp.get_context("spawn")
        store = os.path.join(tempfile.mkdtemp(), "store")  # noqa: PTH118 (a URL needs the text)
        self.queues = [(context.Queue(), context.Queue()) for _ in range(WORLD_SIZE)]
        self.processes = [
            context.Process(target=_worker, args=(rank, store, *self.queues[rank], self.fast), daemon=True)
            for rank in range(WORLD_SIZE)
        ]
        for process in self.processes:
            process.start()
        self._answers(timeout=600)

    def _answers(self, timeout: float) -> list[tuple[bool, Any]]:
        return [results.get(timeout=timeout) for _, results in self.queues]

    def __call__(self, function: Callable[..., Any], *args: Any, timeout: float = 120) -> list[Any]:
        """The results of ``function(rank, *args)`` of both processes, which must be a module's own function."""
        for tasks, _ in self.queues:
            tasks.put((function, args))
        try:
            answers = self._answers(timeout)
        except queue.Empty:
            for process in self.processes:
                process.kill()
            self.start()  # an answer that comes late would be taken for that of the next function
            pytest.fail(f"{function.__name__} did not end in {timeout:.0f} s in both processes")
        for ok, value in answers:
            if not ok:
                pytest.fail(value)
        return [value for _, value in answers]

    def close(self) -> None:
        for tasks, _ in self.queues:
            tasks.put(None)
        for process in self.processes:
            process.join(10)
            process.kill()


@pytest.fixture(scope="session")
def two_processes(request) -> Iterator[Pool]:
    """``two_processes(function, *args)`` runs a function in two gloo processes and returns both results."""
    pool = Pool(fast=not request.config.getoption("--no-fast-paths"))
    yield pool
    pool.close()


@pytest.fixture(scope="session")
def installed_plugins(tmp_path_factory) -> dict[str, pathlib.Path]:
    """Folders into which pip installed each of the packages under tests/plugins, by name."""
    source = pathlib.Path(__file__).parent / "plugins"
    built = tmp_path_factory.mktemp("plugins")
    shutil.copytree(source, built / "source")  # building leaves files beside the source
    folders = {}
    for package in sorted(p.name for p in source.iterdir() if p.is_dir()):
        folders[package] = built / package
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
        subprocess.run([*command, "--target", str(folders[package]), str(built / "source" / package)], check=True)
    return folders


@pytest.fixture
def plugins(installed_plugins, monkeypatch) -> Iterator[Callable[..., None]]:
    """``plugins("good", "clash")`` makes these packages importable, as if they were installed, for one test."""
    registries = (LOSSES, BOX_LOSSES, WEIGHTERS, ASSIGNERS, NORMALIZERS)

    def forget() -> None:
        for registry in registries:
            registry.__dict__.pop("points", None)
        for name in installed_plugins:
            sys.modules.pop(f"{name}_plugin", None)

    def install(*names: str) -> None:
        for name in names:
            monkeypatch.syspath_prepend(str(installed_plugins[name]))
        forget()

    yield install
    monkeypatch.undo()
    forget()
