"""Evaluators of boxes: hotcoco, which is fast, and pycocotools, a slower fallback with the same results."""

import importlib
import logging
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal, TypeVar, get_args

from ...core.errors import UsageError, check_choice
from .base import Backend as Backend
from .base import ClassMatches as ClassMatches
from .base import Protocol as Protocol
from .base import Tables as Tables
from .hotcoco import HotcocoBackend
from .pycocotools import PycocotoolsBackend
from .self_check import find_fault

BackendName = Literal["hotcoco", "pycocotools"]

ResultT = TypeVar("ResultT")

_log = logging.getLogger(__name__)


def load_backend(name: BackendName) -> Backend:
    """Load a backend and check its results on a built-in test case.

    Args:
        name: ``hotcoco`` or ``pycocotools``.

    Raises:
        UsageError: If the name is unknown, or if the package is missing or computes wrong results.
    """
    check_choice("DetectionMAP", "backend", name, get_args(BackendName))
    backend, why = _try_backend(name)
    if backend is None:
        raise UsageError(
            f"DetectionMAP: backend={name!r} cannot be used: {why}. Reinstall it with pip install {name}, or omit "
            "backend to use one that works."
        )
    return backend


def with_backend(name: BackendName | None, evaluation: Callable[[Backend], ResultT]) -> ResultT:
    """Run an evaluation with a backend that works, and return its result.

    Args:
        name: The backend. None uses hotcoco, or pycocotools if hotcoco is missing, computes wrong results or fails,
            which is logged once.
        evaluation: The function to call with the backend.

    Raises:
        UsageError: If the backend cannot be used; with None, if neither backend can be used.
    """
    if name is not None:
        return evaluation(load_backend(name))
    backend, why = _try_backend("hotcoco")
    if backend is not None:
        try:
            return evaluation(backend)
        except Exception as error:  # any error: the other evaluator may not have it
            why = _text(error)
    other, reason = _try_backend("pycocotools")
    if other is None:
        raise UsageError(
            f"DetectionMAP: no evaluator can be used: hotcoco: {why}; pycocotools: {reason}. pip install hotcoco "
            "pycocotools installs both."
        )
    _say_once(f"hotcoco cannot be used: {why}. Using pycocotools instead: the same results, but much slower.")
    return evaluation(other)


def _try_backend(name: BackendName) -> tuple[Backend | None, str]:
    """Return a backend that works, or None and the reason."""
    try:
        backend = _import_backend(name)
        fault = _fault(backend)
    except Exception as error:  # a broken package may raise anything
        return None, _text(error)
    return (None, fault) if fault else (backend, "")


def _import_backend(name: BackendName) -> Backend:
    if name == "hotcoco":
        package = importlib.import_module("hotcoco")
        return _made(HotcocoBackend, package.COCO, package.COCOeval)
    coco = importlib.import_module("pycocotools.coco")
    return _made(PycocotoolsBackend, coco.COCO, importlib.import_module("pycocotools.cocoeval").COCOeval)


@lru_cache
def _made(kind: Callable[[Any, Any], Backend], coco: Any, coco_eval: Any) -> Backend:
    """Return the same object for the same classes, so that each backend is checked only once."""
    return kind(coco, coco_eval)


@lru_cache
def _fault(backend: Backend) -> str:
    return find_fault(backend)


@lru_cache
def _say_once(message: str) -> None:
    _log.warning(message)


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
