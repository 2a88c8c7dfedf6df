"""``lit-dense``: what answers at once, and the door to everything else.

``lit-dense list`` names losses, weighters and the rest from package metadata, without importing torch; the other verbs
are those of :mod:`lit_dense.lightning_cli`.
"""

import os
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path

from .refusals import message_of

GROUPS = {
    "losses": "model.loss",
    "box_losses": "model.box_loss",
    "weighters": "model.weighters",
    "assigners": "model.assigner",
    "normalizers": "model.normalizer",
    "samplers": "data.sampler",
}
"""Entry-point groups, and the argument that takes their names."""

VERBS = ("fit", "validate", "test", "predict", "check", "compare", "list")


def main(args: Sequence[str] | None = None) -> None:
    """Run a command; a mistake in configuration or data ends it with a message and status 1.

    With the environment variable ``JSONARGPARSE_DEBUG=1`` it ends with the traceback.

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
        if message is None or os.environ.get("JSONARGPARSE_DEBUG"):
            raise
        print(f"lit-dense: {message}", file=sys.stderr)
        sys.exit(1)


def list_names() -> str:
    """A line for each registered name: its group, the argument's value, and the package it comes from."""
    lines = []
    for group, argument in GROUPS.items():
        points = sorted(entry_points(group=f"lit_dense.{group}"), key=lambda p: p.name)
        for point in points:
            package = f"{point.dist.name} {point.dist.version}" if point.dist else "?"
            lines.append(f"{group:<12}--{argument}={point.name:<16}{package}")
    return "\n".join(lines)
