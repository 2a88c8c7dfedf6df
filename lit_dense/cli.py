"""``lit-dense``: Lightning's command line for LitRetinaNet, and two verbs of its own.

``lit-dense list`` names losses, weighters and the rest from package metadata, without importing torch.
``lit-dense check`` looks through a data set.
"""

import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import NonFiniteLossError, UsageError

if TYPE_CHECKING:
    from lightning.pytorch.cli import LightningCLI

GROUPS = {
    "losses": "loss",
    "box_losses": "box_loss",
    "weighters": "weighters",
    "assigners": "assigner",
    "normalizers": "normalizer",
}
"""Entry-point groups, and the argument that takes their names."""


def main(args: Sequence[str] | None = None) -> None:
    """Run a command; a mistake in configuration or data ends it with a message and status 1.

    Args:
        args: The command's words; by default those of the process.
    """
    words = list(sys.argv[1:] if args is None else args)
    if words[:1] == ["list"]:
        print(list_names())
        return
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)  # --model.loss=mylocal.MyLoss works as it does under `python train.py`
    try:
        run(words)
    except (UsageError, NonFiniteLossError) as error:
        print(f"lit-dense: {error}", file=sys.stderr)
        sys.exit(1)


def list_names() -> str:
    """A line for each registered name: its group, the argument's value, and the package it comes from."""
    lines = []
    for group, argument in GROUPS.items():
        points = sorted(entry_points(group=f"lit_dense.{group}"), key=lambda p: p.name)
        for point in points:
            package = f"{point.dist.name} {point.dist.version}" if point.dist else "?"
            lines.append(f"{group:<12}--model.{argument}={point.name:<16}{package}")
    return "\n".join(lines)


def run(words: Sequence[str]) -> "LightningCLI":
    """Run one of Lightning's verbs, or ``check``.

    Args:
        words: The command's words.
    """
    from lightning.pytorch import Trainer
    from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
    from lightning.pytorch.utilities.rank_zero import rank_zero_warn

    from . import __version__
    from .callbacks import PredictionWriter
    from .data import CocoDataModule, check
    from .module import LitRetinaNet

    class CheckingTrainer(Trainer):
        """A trainer with one more verb; LightningCLI takes its verbs from the trainer."""

        def check(self, model: Any, datamodule: CocoDataModule) -> None:
            """Looks through a data set and prints what is in it and what is wrong with it."""
            report = check(datamodule)
            print(report.text)
            if not report.ok:
                sys.exit(1)

    class LitDenseCLI(LightningCLI):
        """LightningCLI for LitRetinaNet and CocoDataModule."""

        @staticmethod
        def subcommands() -> dict[str, set[str]]:
            return {**LightningCLI.subcommands(), "check": {"model", "datamodule"}}

        def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
            parser.add_lightning_class_args(PredictionWriter, "predictions")

        def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
            super().parse_arguments(parser, args)
            self.asked = self.config[self.config["subcommand"]].get("model").clone()

        def before_instantiate_classes(self) -> None:
            config = self.config[self.subcommand]
            if self.subcommand == "check":
                config["model"]["num_classes"] = None  # then no network is built
                return
            _check_checkpoint(config.get("ckpt_path"))
            for name, value in config["model"].as_dict().items():
                if _differs(before := self.asked.as_dict().get(name), value) and f"--model.{name}" in " ".join(words):
                    rank_zero_warn(
                        f"The checkpoint's {name} is used, {value}, not {before}: with --ckpt_path Lightning takes the "
                        "model's arguments from the checkpoint. To train on with other ones, start from "
                        "LitRetinaNet.load_from_checkpoint(path, ..., strict=False) in Python."
                    )

    return LitDenseCLI(
        LitRetinaNet,
        CocoDataModule,
        trainer_class=CheckingTrainer,
        save_config_kwargs={"overwrite": True},
        parser_kwargs={"prog": "lit-dense", "version": __version__},
        args=None if list(words) == sys.argv[1:] else list(words),  # Lightning warns of args beside sys.argv
    )


def _check_checkpoint(path: Any) -> None:
    """A path that names no file is better said now than after the data is read."""
    if path is None or path in ("last", "best", "hpc", "registry") or "://" in str(path) or Path(path).exists():
        return
    folder = Path(path).parent
    there = ", ".join(sorted(p.name for p in folder.glob("*.ckpt"))) if folder.is_dir() else ""
    raise UsageError(f"There is no checkpoint {path}." + (f" In its folder: {there}." if there else ""))


def _differs(before: Any, after: Any) -> bool:
    """Whether the checkpoint changed an argument; a short name and an import path may mean the same class."""

    def plain(value: Any) -> Any:
        return value.get("init_args", value) if isinstance(value, dict) else value

    return bool(plain(before) != plain(after))
