"""LightningCLI for LitDetector and CocoDataModule, with more subcommands, such as ``check`` and ``analyze``."""

import sys
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from .._version import __version__
from ..calibrators import CALIBRATORS, CalibratorLike
from ..callbacks import PredictionWriter
from ..core.errors import UsageError, check_range
from ..core.registry import Registry
from ..core.yaml_files import load_yaml
from ..criterion import REGISTRIES
from ..data import CocoDataModule, check
from ..detectors.backbones import loads_checkpoint
from ..detectors.from_arguments import NETWORKS
from ..losses import LOSSES
from ..training import LitDetector, LitRetinaNet
from ..training.calibration import calibrate
from ..weighters import WEIGHTERS
from .checkpoint_file import check_checkpoint
from .command_parser import CommandParser
from .first_screen import FirstScreen, quiet

DEFAULT_DETECTOR, DEFAULT_LOSS = "retinanet", "focal"
DEFAULT_SPEC = LOSSES.build(DEFAULT_LOSS).spec

LEAST = {"accumulate_grad_batches": 1, "check_val_every_n_epoch": 1, "gradient_clip_val": 0}
"""Smallest valid values of trainer options that Lightning does not check; below, it divides by 0 or climbs the loss."""

ALSO = (
    "Further commands: lit-dense list shows every loss, weighter and other part; lit-dense convert writes a data set "
    "in another format (lit-dense convert -h); lit-dense compare trains several configurations at equal budget and "
    "writes one report (lit-dense compare -h); lit-dense advise suggests what to compare (lit-dense advise -h)."
)


class CheckingTrainer(Trainer):
    """Lightning's Trainer: length of the run, devices, precision and output."""

    # LightningCLI takes the subcommands from the trainer, and shows this docstring above the trainer's options

    def check(self, model: Any, datamodule: CocoDataModule) -> None:
        """Check a data set and print its content and its problems."""
        report = check(datamodule, model.longest_side)
        print(report.text)
        if not report.ok:
            sys.exit(1)

    def calibrate(
        self,
        model: Any,
        datamodule: CocoDataModule,
        ckpt_path: str | None = None,
        calibrator: CalibratorLike | None = None,
        output: str | None = None,
        candidates: int = 1000,
        weights_only: bool | None = None,
    ) -> None:
        """Fit a calibrator to the validation set of a checkpoint, print the results and write a checkpoint with it.

        Args:
            model: The detector.
            datamodule: Data with training and validation set.
            ckpt_path: Checkpoint to calibrate.
            calibrator: temperature, logit_adjustment, fracal, or another calibrator; by default the model's or, if it
                has none, temperature.
            output: Checkpoint to write; by default that of ckpt_path with -calibrated before the suffix.
            candidates: Number of detections of an image to store.
            weights_only: Not used, but part of configurations that fit saves: checkpoints are read as plain data.
        """
        if ckpt_path is None:
            raise UsageError("calibrate needs a trained model: give --ckpt_path=PATH.")
        check_range("calibrate", "candidates", candidates, 1)
        own = model.criterion.calibrator
        built = CALIBRATORS.build(calibrator or (own and own.spec) or "temperature")
        print(calibrate(self, model, datamodule, ckpt_path, built, output, candidates).text)

    def export(
        self,
        model: Any,
        datamodule: CocoDataModule,
        ckpt_path: Path,
        format: str = "onnx",
        output: Path | None = None,
        size: int | list[int] | None = None,
        nms: bool = True,
        images: int = 50,
    ) -> None:
        """Write a trained detector to one file, from image to boxes, and compare the file with the model.

        Args:
            model: The model.
            datamodule: The data; its validation images are compared.
            ckpt_path: The checkpoint.
            format: ``onnx``, ``pt2`` (torch.export), ``torchscript`` or ``openvino``.
            output: The file; by default beside the checkpoint.
            size: Height and width of the images that the file takes, as ``[480, 640]``, or one number for squares; by
                default the size to which the model scales most validation images.
            nms: Whether the file applies non-maximum suppression and takes one image. Without it, the file takes
                batches and returns the best candidates.
            images: Number of validation images to compare.
        """
        from .export_command import run_export

        sizes = [size] if isinstance(size, int) else size
        print(run_export(model, datamodule, Path(ckpt_path), format, output, sizes, nms, images))

    def analyze(
        self,
        model: Any,
        datamodule: CocoDataModule,
        ckpt_path: str | None = None,
        output: str | None = None,
        weights_only: bool | None = None,
    ) -> None:
        """Write one page about the errors of a checkpoint on the validation set: types, classes, pictures, scores.

        Args:
            model: The detector.
            datamodule: Data with a validation set.
            ckpt_path: Checkpoint to analyze.
            output: The page; by default analysis.html beside the checkpoint.
            weights_only: Not used, but part of configurations that fit saves: checkpoints are read as plain data.
        """
        from .analysis.command import analyze  # matplotlib is slow to import

        if ckpt_path is None:
            raise UsageError("analyze needs a trained model: give --ckpt_path=PATH.")
        if (report := analyze(self, model, datamodule, ckpt_path, output)) is not None:
            print(report)


class LitDenseCLI(LightningCLI):
    """LightningCLI with more subcommands and a prediction writer; given options override those of a checkpoint."""

    _has_checkpoint = False  # whether the weights of a file replace those that the model is built with

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # otherwise --optimizer and --lr_scheduler silently replace --model.optimizer and --model.schedule
        super().__init__(*args, **{"auto_configure_optimizers": False, "parser_class": CommandParser, **kwargs})

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return Lightning's subcommands, ``check``, ``calibrate``, ``analyze`` and ``export``."""
        own = {"model", "datamodule"}
        return {**LightningCLI.subcommands(), **dict.fromkeys(("check", "calibrate", "analyze", "export"), own)}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add options of the prediction writer, and a default loss for options such as ``--model.loss.gamma``."""
        parser.add_lightning_class_args(PredictionWriter, "predictions")
        parser.set_defaults({"model.loss": DEFAULT_LOSS})

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the arguments, and store the model's configuration before a checkpoint changes it."""
        super().parse_arguments(parser, args)
        self._arguments: list[str] = sys.argv[1:] if args is None else list(args)
        config = self.config[self.config["subcommand"]]
        self._fit_to_detector(config.get("model"))
        self._asked = config.get("model").clone()
        if path := config.get("ckpt_path"):
            _check_path(path)

    def _fit_to_detector(self, model: Any) -> None:
        """Replace the defaults of another detector by those of the given one.

        The default loss is the detector's own. If the command changes the detector of a configuration file, the file's
        assigner is removed, just as jsonargparse removes the arguments of a class that is replaced by another.
        """
        if model is None or model.get("detector") not in NETWORKS:
            return
        given = _in_files(self.config, str(self.config["subcommand"]))
        adapter = NETWORKS[model["detector"]].adapter
        loss_given = "loss" in given or _is_option(self._arguments, "loss")
        loss_given = loss_given or _spec(LOSSES, model["loss"]) != DEFAULT_SPEC
        if not loss_given and adapter.stock[adapter.stages[0]]["loss"] != DEFAULT_LOSS:
            model["loss"] = None
        changed = model["detector"] != DEFAULT_DETECTOR and "detector" not in given
        if changed and "assigner" in given and not _is_option(self._arguments, "assigner"):
            rank_zero_info(
                f"The configuration's assigner was chosen for another detector than {model['detector']}: it is "
                "ignored, unless the command also gives it."
            )
            model["assigner"] = None

    def before_instantiate_classes(self) -> None:
        """Keep ``check`` from building a network, and merge the options of command and checkpoint."""
        config = self.config[self.subcommand]
        if self.subcommand == "check":
            config["model"]["num_classes"] = None  # then no network is built
            return
        for name, low in LEAST.items():
            if (value := config["trainer"].get(name)) is not None:
                check_range("trainer", name, value, low)
        if config["trainer"].get("val_check_interval") == 0:  # Lightning would divide by it
            raise UsageError(
                "trainer: val_check_interval must be a number of batches, at least 1, or a share of an epoch, above 0, "
                "not 0. To train without validation: trainer.limit_val_batches=0."
            )
        if self.subcommand == "analyze":  # the loss is observed with its gradient
            config["trainer"]["inference_mode"] = False
        if config.get("ckpt_path"):
            self._has_checkpoint = Path(config["ckpt_path"]).is_file()
            given = _in_files(self.config, str(self.subcommand))
            for name in self._asked.as_dict():
                if _is_option(self._arguments, name) or name in given:
                    self._override(config["model"], name)

    def after_fit(self) -> None:
        """Save ``last.ckpt`` if the run ended after the last checkpoint was written, or before the first."""
        save_end(self.trainer)

    def instantiate_classes(self) -> None:
        """Build trainer, model and data; errors of constructors are raised unchanged."""
        self.parser.add_instantiator(_construct, object)  # after those of Lightning
        try:
            with loads_checkpoint() if self._has_checkpoint else nullcontext():
                super().instantiate_classes()
            return
        except _ConstructorError as caught:
            error = caught.error
        raise error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer; a number of batches that was parsed as a float becomes an integer."""
        options = self.config_init[self.subcommand]["trainer"]
        interval = options.get("val_check_interval")
        # the option accepts int and float, and the order of the two in typing's cache decides how numbers are parsed
        if isinstance(interval, float) and interval > 1 and interval.is_integer():
            options["val_check_interval"] = int(interval)
        return super().instantiate_trainer(**kwargs)

    def _override(self, model: Any, name: str) -> None:
        """Replace the checkpoint's option by the given one, except for parts with state in the checkpoint."""
        if name == "detector" and self._asked[name] != model[name]:
            raise UsageError(
                f"The checkpoint's detector is {model[name]}: its weights cannot be used for {self._asked[name]}. "
                "Leave model.detector out, or start without the checkpoint."
            )
        if name == "calibrator" and self.subcommand == "calibrate":
            calibration = self.config[self.subcommand]
            calibration["calibrator"] = calibration.get("calibrator") or self._asked[name]
            return
        if name == "calibrator" and (model[name] is None or _is_option(self._arguments, name)):
            model[name] = self._asked[name]  # it is not trained
            return
        if name not in REGISTRIES:
            if name == "optimizer" and self.subcommand == "fit" and self._asked[name] != model[name]:
                raise UsageError(
                    f"The checkpoint's optimizer is {model[name]}: its state cannot be used for {self._asked[name]}. "
                    "Leave model.optimizer out, or start from the weights with LitDetector.load_from_checkpoint(path, "
                    f"optimizer={self._asked[name]!r}) in Python."
                )
            model[name] = self._asked[name]
            return
        asked, saved = _spec(REGISTRIES[name], self._asked[name]), _spec(REGISTRIES[name], model[name])
        if asked != saved:
            rank_zero_warn(
                f"The checkpoint's {name} is used, {saved}, not {asked}: the checkpoint contains its state. To train "
                f"with another, use LitDetector.load_from_checkpoint(path, {name}=..., strict=False) in Python."
            )


def save_end(trainer: Trainer) -> None:
    """Save the state at the end of training, unless a checkpoint callback has just done so.

    Lightning saves at validations and ends of epochs, so a run with ``max_steps`` can end without any checkpoint.

    Args:
        trainer: A trainer that has ended ``fit``.
    """
    callbacks = [c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)]
    if not callbacks or not trainer.global_step:
        return
    if any(getattr(c, "_last_global_step_saved", None) == trainer.global_step for c in callbacks):
        return
    folder = callbacks[0].dirpath or Path(trainer.default_root_dir) / "checkpoints"
    trainer.save_checkpoint(Path(folder) / "last.ckpt")


class _ConstructorError(BaseException):
    """Carries an error past jsonargparse, which would otherwise try other types of a union and hide the error."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def _construct(class_type: Any, *args: Any, **kwargs: Any) -> Any:
    if class_type is LitDetector and kwargs.get("detector") in LitRetinaNet.detectors:
        class_type = LitRetinaNet  # the class of Python code and of older checkpoints
    try:
        return class_type(*args, **kwargs)
    except Exception as error:
        raise _ConstructorError(error) from error


def run(arguments: Sequence[str]) -> LitDenseCLI:
    """Run one of Lightning's subcommands or ``check``.

    Args:
        arguments: Command-line arguments.

    Returns:
        The command line with the built ``model``, ``datamodule`` and ``trainer``.
    """
    with quiet(), warnings.catch_warnings():
        # the metric is already gathered from all processes: Lightning's advice would reduce it a second time
        warnings.filterwarnings("ignore", r"It is recommended to use `self.log\('(val|test)_map")
        return LitDenseCLI(
            LitDetector,
            CocoDataModule,
            trainer_class=CheckingTrainer,
            trainer_defaults={"callbacks": [FirstScreen()]},
            save_config_kwargs={"overwrite": True},
            parser_kwargs={"prog": "lit-dense", "version": __version__, "epilog": ALSO},
            # Lightning warns if args are given and differ from sys.argv
            args=None if list(arguments) == sys.argv[1:] else list(arguments),
        )


def _check_path(path: Any) -> None:
    """Check that a checkpoint exists and is valid, before the data is read."""
    if path in ("last", "best", "hpc", "registry") or "://" in str(path):
        return
    if Path(path).exists():
        check_checkpoint(Path(path))
        return
    folder = Path(path).parent
    existing = ", ".join(sorted(p.name for p in folder.glob("*.ckpt"))) if folder.is_dir() else ""
    raise UsageError(f"There is no checkpoint {path}." + (f" In its folder: {existing}." if existing else ""))


def _is_option(arguments: Sequence[str], name: str) -> bool:
    """Return whether the command line, not a file, gives an argument of the model."""
    options = [argument.split("=")[0].rstrip("+") for argument in arguments]
    return any(option == f"--model.{name}" or option.startswith(f"--model.{name}.") for option in options)


def _in_files(config: Any, verb: str) -> set[str]:
    """Return the model's arguments in the configuration files; null values do not count."""
    names: set[str] = set()
    for place in (config, config[verb]):
        for path in filter(None, place.get("config") or []):  # None stands for a configuration in the command itself
            content = load_yaml(Path(path).read_text(encoding="utf-8-sig")) or {}
            model = (content.get(verb) or content).get("model") or {}
            names |= {name for name, value in model.items() if value is not None}
    return names


def _spec(registry: Registry[Any], value: Any) -> Any:
    """Expand a part's configuration to class path and arguments, so that a name and its expansion are equal."""
    if value is None:
        return None
    listed = [item.as_dict() if hasattr(item, "as_dict") else item for item in _listed(value)]
    specs = [part.spec for part in registry.build_list(listed)]
    return specs if isinstance(value, list) or registry is WEIGHTERS else specs[0]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
