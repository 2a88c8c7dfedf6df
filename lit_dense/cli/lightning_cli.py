"""Lightning's command line for LitDetector and CocoDataModule, with a verb that looks through a data set."""

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from .._version import __version__
from ..assigners import ASSIGNERS
from ..box_losses import BOX_LOSSES
from ..callbacks import PredictionWriter
from ..core.errors import UsageError, check_range
from ..core.registry import Registry
from ..data import CocoDataModule, check
from ..detectors.build import NETWORKS
from ..losses import LOSSES
from ..normalizers import NORMALIZERS
from ..training import LitDetector, LitRetinaNet
from ..weighters import WEIGHTERS
from .checkpoint_file import check_checkpoint
from .command_parser import CommandParser

PARTS: dict[str, Registry[Any]] = {
    "loss": LOSSES,
    "box_loss": BOX_LOSSES,
    "weighters": WEIGHTERS,
    "normalizer": NORMALIZERS,
    "assigner": ASSIGNERS,
}


DEFAULT_DETECTOR, DEFAULT_LOSS = "retinanet", "focal"
DEFAULT_SPEC = LOSSES.build(DEFAULT_LOSS).spec

LEAST = {"accumulate_grad_batches": 1, "check_val_every_n_epoch": 1, "gradient_clip_val": 0}
"""Smallest values of the trainer's options that Lightning takes as they are: it would divide by 0, or climb."""

ALSO = (
    "Besides these: lit-dense list names every loss, weighter and other part; lit-dense compare trains several "
    "configurations at equal budget and writes one report (lit-dense compare -h)."
)


class CheckingTrainer(Trainer):
    """How long a run takes, on which devices and in which precision, and what it writes, by Lightning's Trainer."""

    # LightningCLI takes its verbs from the trainer, and the class's docstring heads the trainer's options

    def check(self, model: Any, datamodule: CocoDataModule) -> None:
        """Looks through a data set and prints what is in it and what is wrong with it."""
        report = check(datamodule, model.longest_side)
        print(report.text)
        if not report.ok:
            sys.exit(1)


class LitDenseCLI(LightningCLI):
    """LightningCLI with ``check`` and a writer of predictions; what is asked for wins over what a checkpoint says."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # else --optimizer and --lr_scheduler would silently replace --model.optimizer and --model.schedule
        super().__init__(*args, **{"auto_configure_optimizers": False, **kwargs})

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Lightning's verbs, and ``check``."""
        return {**LightningCLI.subcommands(), "check": {"model", "datamodule"}}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The options of the writer of predictions, and a loss for options such as ``--model.loss.gamma``."""
        parser.add_lightning_class_args(PredictionWriter, "predictions")
        parser.set_defaults({"model.loss": DEFAULT_LOSS})

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, and remember what was asked for before a checkpoint has its say."""
        super().parse_arguments(parser, args)
        self._words: list[str] = sys.argv[1:] if args is None else list(args)
        config = self.config[self.config["subcommand"]]
        self._fit_to_detector(config.get("model"))
        self._asked = config.get("model").clone()
        if path := config.get("ckpt_path"):
            _check_path(path)

    def _fit_to_detector(self, model: Any) -> None:
        """Leave to the detector what is meant for another one.

        Its own loss is the default of the command too. An assigner of a file goes where the command itself names the
        detector, as arguments of a class go where the command names another.
        """
        if model is None or model.get("detector") not in NETWORKS:
            return
        given = _in_files(self.config, str(self.config["subcommand"]))
        adapter = NETWORKS[model["detector"]].adapter
        asked = "loss" in given or _said(self._words, "loss") or _spec(LOSSES, model["loss"]) != DEFAULT_SPEC
        if not asked and adapter.stock[adapter.stages[0]]["loss"] != DEFAULT_LOSS:
            model["loss"] = None
        changed = model["detector"] != DEFAULT_DETECTOR and "detector" not in given
        if changed and "assigner" in given and not _said(self._words, "assigner"):
            rank_zero_info(
                f"The configuration's assigner was chosen for another detector than {model['detector']}: it is left "
                "out, unless the command names it too."
            )
            model["assigner"] = None

    def before_instantiate_classes(self) -> None:
        """Keep ``check`` from building a network, and settle what command and checkpoint say."""
        config = self.config[self.subcommand]
        if self.subcommand == "check":
            config["model"]["num_classes"] = None  # then no network is built
            return
        for name, low in LEAST.items():
            if (value := config["trainer"].get(name)) is not None:
                check_range("trainer", name, value, low)
        if config["trainer"].get("val_check_interval") == 0:  # Lightning would divide by it
            raise UsageError(
                "trainer: val_check_interval must be a number of batches, at least 1, or a part of an epoch, above 0, "
                "not 0. To train without validation: trainer.limit_val_batches=0."
            )
        if config.get("ckpt_path"):
            given = _in_files(self.config, str(self.subcommand))
            for name in self._asked.as_dict():
                if _said(self._words, name) or name in given:
                    self._settle(config["model"], name)

    def instantiate_classes(self) -> None:
        """Build trainer, model and data; an error of a constructor arrives as it was raised."""
        self.parser.add_instantiator(_construct, object)  # the last one: those of Lightning come first
        try:
            super().instantiate_classes()
            return
        except _ConstructorError as caught:
            error = caught.error
        raise error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer; a number of batches that was read as a float is an integer again."""
        options = self.config_init[self.subcommand]["trainer"]
        interval = options.get("val_check_interval")
        # the types of this option are int and float, and the first one in the cache of typing reads all numbers
        if isinstance(interval, float) and interval > 1 and interval.is_integer():
            options["val_check_interval"] = int(interval)
        return super().instantiate_trainer(**kwargs)

    def _settle(self, model: Any, name: str) -> None:
        """What is asked for wins over the checkpoint, but for the parts that the checkpoint's state belongs to."""
        if name == "detector" and self._asked[name] != model[name]:
            raise UsageError(
                f"The checkpoint's detector is {model[name]}, whose weights {self._asked[name]} cannot take over: "
                "leave model.detector out, or start without the checkpoint."
            )
        if name not in PARTS:
            if name == "optimizer" and self.subcommand == "fit" and self._asked[name] != model[name]:
                raise UsageError(
                    f"The checkpoint's optimizer is {model[name]}, whose state {self._asked[name]} cannot take over. "
                    "Leave model.optimizer out, or start from the weights with LitDetector.load_from_checkpoint(path, "
                    f"optimizer={self._asked[name]!r}) in Python."
                )
            model[name] = self._asked[name]
            return
        asked, saved = _spec(PARTS[name], self._asked[name]), _spec(PARTS[name], model[name])
        if asked != saved:
            rank_zero_warn(
                f"The checkpoint's {name} is used, {saved}, not {asked}: its state belongs to it. To train on with "
                f"another, start from LitDetector.load_from_checkpoint(path, {name}=..., strict=False) in Python."
            )


class _ConstructorError(BaseException):
    """Carries an error past jsonargparse, which would try other types of a union and lose it among theirs."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def _construct(class_type: Any, *args: Any, **kwargs: Any) -> Any:
    if class_type is LitDetector and kwargs.get("detector") in LitRetinaNet.detectors:
        class_type = LitRetinaNet  # as it is called in Python, and in checkpoints of before
    try:
        return class_type(*args, **kwargs)
    except Exception as error:
        raise _ConstructorError(error) from error


def run(words: Sequence[str]) -> LitDenseCLI:
    """Run one of Lightning's verbs, or ``check``.

    Args:
        words: The command's words.

    Returns:
        The command line, with what it made: ``model``, ``datamodule`` and ``trainer``.
    """
    with warnings.catch_warnings():
        # the metric has gathered the numbers of all processes: Lightning's advice would reduce each of them once more
        warnings.filterwarnings("ignore", r"It is recommended to use `self.log\('(val|test)_map")
        return LitDenseCLI(
            LitDetector,
            CocoDataModule,
            trainer_class=CheckingTrainer,
            parser_class=CommandParser,
            save_config_kwargs={"overwrite": True},
            parser_kwargs={"prog": "lit-dense", "version": __version__, "epilog": ALSO},
            args=None if list(words) == sys.argv[1:] else list(words),  # Lightning warns of args beside sys.argv
        )


def _check_path(path: Any) -> None:
    """A checkpoint that is not there, or is none, is better said now than after the data was read."""
    if path in ("last", "best", "hpc", "registry") or "://" in str(path):
        return
    if Path(path).exists():
        check_checkpoint(Path(path))
        return
    folder = Path(path).parent
    there = ", ".join(sorted(p.name for p in folder.glob("*.ckpt"))) if folder.is_dir() else ""
    raise UsageError(f"There is no checkpoint {path}." + (f" In its folder: {there}." if there else ""))


def _said(words: Sequence[str], name: str) -> bool:
    """Whether the command itself gives an argument of the model."""
    options = [word.split("=")[0].rstrip("+") for word in words]
    return any(option == f"--model.{name}" or option.startswith(f"--model.{name}.") for option in options)


def _in_files(config: Any, verb: str) -> set[str]:
    """Arguments of the model that the configuration files give; null leaves it to the checkpoint."""
    found: set[str] = set()
    for place in (config, config[verb]):
        for path in place.get("config") or []:
            content = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
            model = (content.get(verb) or content).get("model") or {}
            found |= {name for name, value in model.items() if value is not None}
    return found


def _spec(registry: Registry[Any], value: Any) -> Any:
    """A part's configuration written out, so that a name equals the class and the arguments that it stands for."""
    if value is None:
        return None
    listed = [item.as_dict() if hasattr(item, "as_dict") else item for item in _listed(value)]
    specs = [part.spec for part in registry.build_list(listed)]
    return specs if isinstance(value, list) or registry is WEIGHTERS else specs[0]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
