"""The command ``lit-dense``, also as ``python -m lit_dense``: chooses what runs a verb.

``lit-dense list`` is answered without importing torch (:mod:`lit_dense.cli.listing`), ``lit-dense compare`` by
:mod:`lit_dense.compare`, and the other verbs by :mod:`lit_dense.cli.lightning_cli`.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from .cli.listing import list_names
from .cli.refusals import message_of, tracebacks_wanted


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
        from .cli.lightning_cli import run

        run(words)
    except Exception as error:
        message = message_of(error)
        if message is None or tracebacks_wanted():
            raise
        print(f"lit-dense: {message}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
