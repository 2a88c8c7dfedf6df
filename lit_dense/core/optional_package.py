"""Import of packages that only some functions need."""

from importlib import import_module
from typing import Any

from .errors import UsageError


def optional_package(name: str, purpose: str) -> Any:
    """Import a package that lit-dense does not require.

    Args:
        name: Name of the module, such as ``pandas``.
        purpose: What needs it, the subject of the message.

    Raises:
        UsageError: If the package is not installed.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        package = name.partition(".")[0]
        if (error.name or "").partition(".")[0] != package:
            raise
        raise UsageError(
            f"{purpose} needs {package}, which is not installed: pip install {package}, or all optional packages for "
            'results with pip install "lit-dense[results]".'
        ) from error
