"""Classification of errors: a user's mistake is reported in one line, any other error keeps its traceback.

Mistakes are the errors of this package, and errors that Lightning raises by a ``raise`` statement in its own code,
except those about the code of a LightningModule. An error inside torch, a plug-in or this package is a bug, and so is
an error of an operation inside Lightning.
"""

import errno
import opcode
import os
import re
from types import TracebackType

from ..core.errors import NonFiniteLossError, UsageError, missing_package

LIGHTNING = ("lightning.", "lightning_fabric.", "lightning_utilities.", "pytorch_lightning.", "fsspec.")
TO_AUTHORS = re.compile(
    r"(lightning\.pytorch|pytorch_lightning)\.(core|loops\.optimization|trainer\.connectors\.logger_connector)\b"
)
ABOUT_OPTIONS = re.compile(r"(lightning\.pytorch|pytorch_lightning)\.(tuner|callbacks|utilities\.parsing)\b")
LOADER = re.compile(r"(lightning\.fabric|lightning_fabric)\.utilities\.cloud_io$")
REFUSALS = (ValueError, RuntimeError, TypeError, KeyError, ImportError, OSError)
OPTION_REFUSALS = (AttributeError, IndexError)
"""Errors of Lightning's callbacks and tuner for an invalid name or epoch; elsewhere they are bugs."""
OWN_ERROR = re.compile(r"^lit_dense\.core\.errors\.\w+: ", re.MULTILINE)
"""The beginning of the last lines of a traceback that ends with an error of this package."""
FILE_SYSTEM = (errno.EACCES, errno.EPERM, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOSPC, errno.EROFS)


def tracebacks_wanted() -> bool:
    """Return whether ``JSONARGPARSE_DEBUG=true`` requests the traceback of every error."""
    return os.environ.get("JSONARGPARSE_DEBUG", "").lower() == "true"


def message_of(error: BaseException) -> str | None:
    """Return the message for an error that is a user's mistake; None for a bug.

    Args:
        error: The error that ended a command.
    """
    cause: BaseException | None = error
    while cause is not None:  # jsonargparse wraps errors of constructors
        if isinstance(cause, UsageError | NonFiniteLossError):
            return _without_traceback(str(cause))
        if isinstance(cause, ImportError) and (message := missing_package(cause)):
            return message
        if _lightning_refuses(cause):
            return _on_one_line(cause)
        cause = cause.__cause__
    if isinstance(error, OSError) and error.filename is not None:
        frame = _innermost(error)
        no_folder = frame is not None and frame.tb_frame.f_code.co_name in ("makedirs", "mkdir")
        if error.errno in FILE_SYSTEM or no_folder:
            return str(error)
    return _unreadable(error) or _misfit(error) or _of_other_process(error)


def _innermost(error: BaseException) -> TracebackType | None:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace


def _lightning_refuses(error: BaseException) -> bool:
    if (trace := _innermost(error)) is None:
        return False
    module = str(trace.tb_frame.f_globals.get("__name__"))
    if not module.startswith(LIGHTNING) or TO_AUTHORS.match(module):
        return False
    # Lightning's own exception is recognised by name, because this module must not import Lightning
    meant = isinstance(error, REFUSALS) or type(error).__name__ == "MisconfigurationException"
    meant = meant or (isinstance(error, OPTION_REFUSALS) and ABOUT_OPTIONS.match(module) is not None)
    return meant and _at_raise(trace)


def _at_raise(trace: TracebackType) -> bool:
    """Return whether a frame ended in a ``raise`` statement, not in an operation that failed."""
    return opcode.opname[trace.tb_frame.f_code.co_code[trace.tb_lasti]] == "RAISE_VARARGS"


def _on_one_line(error: BaseException) -> str:
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(text.split()) or type(error).__name__


def _unreadable(error: BaseException) -> str | None:
    """Return the message for an unreadable checkpoint that Lightning has chosen, such as for ``ckpt_path=last``."""
    trace = error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        if LOADER.match(str(frame.f_globals.get("__name__"))) and frame.f_code.co_name == "_load":
            path = frame.f_locals.get("path_or_url", "The file")
            return f"{path} cannot be read as a checkpoint: it is damaged, truncated, or not a file of torch.save."
        trace = trace.tb_next
    return None


def _misfit(error: BaseException) -> str | None:
    """Return the message for a checkpoint that does not fit the model or the optimiser."""
    text = str(error)
    if isinstance(error, RuntimeError) and text.startswith("Error(s) in loading state_dict"):
        first = " ".join(text.split("\n")[1].split())
        others = len(re.findall(r"size mismatch|Missing key|Unexpected key", text)) - 1
        first = first if len(first) < 200 else f"{first[:200]} ..."
        return (
            f"The checkpoint's weights do not fit this model: {first}{f' (and {others} more)' if others > 0 else ''} "
            "Leave out options that change the network, such as --model.backbone: the checkpoint contains them."
        )
    if isinstance(error, ValueError) and text.startswith("loaded state dict"):
        return (
            f"The checkpoint's optimizer state does not fit this model's optimizer: {text}. Resume with the optimizer, "
            "frozen_stages and backbone_lr_factor of the original training."
        )
    return None


def _without_traceback(text: str) -> str:
    """Remove the traceback of another process from a message."""
    return OWN_ERROR.split(text)[-1].strip()


def _of_other_process(error: BaseException) -> str | None:
    """Return this package's message inside the traceback of a spawned training process."""
    text = str(error)
    return _without_traceback(text) if OWN_ERROR.search(text) else None
