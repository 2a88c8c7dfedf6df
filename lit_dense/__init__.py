"""Dense object detection in PyTorch Lightning with any loss and any sample weighting, each chosen by name.

The public names are listed in ``__init__.pyi``. Each is imported when it is first used, so that ``lit-dense list``
answers without importing torch.
"""

import ast
from importlib import import_module
from pathlib import Path
from typing import Any

from . import _moved
from ._version import __version__ as __version__

_WHERE = {
    alias.name: f".{node.module}"
    for node in ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")).body
    if isinstance(node, ast.ImportFrom)
    for alias in node.names
}
__all__ = list(_WHERE)

_moved.install()


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        return _moved.former(__name__, name)
    try:
        module = import_module(_WHERE[name], __name__)
    except ModuleNotFoundError as error:
        from .core.errors import missing_package

        if (message := missing_package(error)) is None:
            raise
        raise ModuleNotFoundError(f"lit_dense.{name}: {message}", name=error.name) from error
    return getattr(module, name)
