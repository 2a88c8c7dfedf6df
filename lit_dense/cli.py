"""``lit-dense``: what answers at once, and the door to everything else.

``lit-dense list`` names losses, weighters and the rest without importing torch (:mod:`lit_dense.listing`); the other
verbs are those of :mod:`lit_dense.lightning_cli`.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from .listing import list_names
from .refusals import message_of, tracebacks_wanted

VERBS = ("fit", "validate", "test", "predict", "check", "compare", "list")


def main(args: Sequence[str] | None = None) -> None:
    """Run a command; a mistake in configuration or data ends it with a message and status 1.

    With the environment variable ``JSONARGPARSE_DEBUG=true`` it ends with the traceback.

    Args:
        args: The command's words; by default those of the process.
    """
    words = list(sys.argv[1:] if args is None else args)
    if words[:1] == ["list"]:
        print(list_names())
        return
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)  # --model.loss=mylocal.MyLoss works as it does under `python train.py`
    # before torch is imported: threads that spin while they wait make a run on a busy CPU several times slower
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        if words[:1] == ["compare"]:
            from .compare.command import main as compare

            sys.exit(compare(words[1:]))
        from .lightning_cli import run

        run(words)
    except Exception as error:
        message = message_of(error)
        if message is None or tracebacks_wanted():
            raise
        print(f"lit-dense: {message}", file=sys.stderr)
        sys.exit(1)
