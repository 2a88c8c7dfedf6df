"""Entry point of the command ``lit-dense`` and of ``python -m lit_dense``: dispatches the subcommand.

``lit-dense list`` runs without importing torch (:mod:`lit_dense.cli.listing`). ``lit-dense compare`` runs
:mod:`lit_dense.compare`, ``lit-dense advise`` runs :mod:`lit_dense.compare.advise`, ``lit-dense convert`` runs
:mod:`lit_dense.cli.convert`, and the other subcommands run :mod:`lit_dense.cli.lightning_cli`.
"""

import os
import select
import sys
from collections.abc import Sequence
from pathlib import Path

from .cli.listing import list_names
from .cli.user_errors import message_of, tracebacks_wanted

CLOSED_PIPE = 141
"""Exit status if the reader of the output has ended, as of a command that the signal SIGPIPE stops."""


def main(args: Sequence[str] | None = None) -> None:
    """Run a command; a mistake in configuration or data prints a one-line message and exits with status 1.

    With the environment variable ``JSONARGPARSE_DEBUG=true``, the traceback is printed.

    Args:
        args: Command-line arguments; by default those of the process.
    """
    try:
        _run(list(sys.argv[1:] if args is None else args))
        sys.stdout.flush()
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            sys.exit(CLOSED_PIPE)
        message = message_of(error)
        if message is None or tracebacks_wanted():
            raise
        print(f"lit-dense: {message}", file=sys.stderr)
        sys.exit(1)


def _run(arguments: list[str]) -> None:
    if arguments[:1] == ["list"]:
        print(list_names())
        return
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)  # --model.loss=mylocal.MyLoss works as it does under `python train.py`
    # before torch is imported: busy-waiting threads make a run on a loaded CPU several times slower
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if arguments[:1] == ["compare"]:
        from .compare.command import main as compare

        status = compare(arguments[1:])
        sys.stdout.flush()
        sys.exit(status)
    if arguments[:1] == ["advise"]:
        from .compare.advise import report

        print(report(arguments[1:]))
        return
    if arguments[:1] == ["convert"]:
        from .cli.convert import main as convert

        convert(arguments[1:])
        return
    from .cli.lightning_cli import run

    run(arguments)


def _nobody_reads() -> bool:
    """Return whether the reader of the output has ended, as in ``lit-dense list | head -1``; the rest is dropped."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    if not any(event & select.POLLERR for _, event in output.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python writes the rest when it ends
    return True


if __name__ == "__main__":
    main()
