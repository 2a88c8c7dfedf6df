"""The process of one run: ``python -m lit_dense.compare.worker FOLDER``; FOLDER contains the run's ``run.json``."""

import os
import platform
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

from .._version import __version__
from ..callbacks import DetectionPlots, LossPlots
from ..callbacks.every_n_steps import EveryNSteps
from ..cli.checkpoint_file import check_checkpoint
from ..cli.lightning_cli import CheckingTrainer, LitDenseCLI
from ..cli.user_errors import message_of
from ..core.errors import UsageError
from ..data import CocoDataModule
from ..training import LitDetector
from .committed import export
from .configuration import without_args_warning
from .files import CHECKPOINT, CONFIG, RESULT, ROWS, TABLES, save_tables, write_json
from .plan import Run
from .provenance import versions
from .recorder import Recorder

WATCH = "--until-stdin-closes"
"""The option that makes a worker exit as soon as the process that started it has ended for any reason."""


class RunCLI(LitDenseCLI):
    """``lit-dense fit`` of one run: writes all files into the run's folder, and resumes an interrupted run.

    Training follows the run's configuration. Only the folders of files, the progress bar and the checkpoints differ.

    Args:
        folder: The run's folder.
        kwargs: Arguments of LightningCLI.
    """

    def __init__(self, folder: Path, **kwargs: Any) -> None:
        self.folder, self.recorder = folder, Recorder()
        every_validation = ModelCheckpoint(
            dirpath=folder, filename=Path(CHECKPOINT).stem, save_on_train_epoch_end=False, enable_version_counter=False
        )
        super().__init__(
            LitDetector,
            CocoDataModule,
            trainer_class=CheckingTrainer,
            trainer_defaults={"callbacks": [self.recorder, every_validation]},
            save_config_kwargs={"overwrite": True},
            parser_kwargs={"prog": "lit-dense", "version": __version__},
            **kwargs,
        )

    def before_instantiate_classes(self) -> None:
        """Set the output folder, callbacks, and the checkpoint to resume from."""
        super().before_instantiate_classes()
        config = self.config[self.subcommand]
        trainer = config["trainer"]
        trainer["default_root_dir"] = str(self.folder)
        trainer["enable_progress_bar"] = trainer["enable_model_summary"] = False
        trainer["enable_checkpointing"] = True
        logs = Namespace(save_dir=str(self.folder), name="log")
        trainer["logger"] = Namespace(class_path="lightning.pytorch.loggers.CSVLogger", init_args=logs)
        given = trainer["callbacks"] or []
        given = given if isinstance(given, list) else [given]
        callbacks = [callback for callback in given if not issubclass(_class(callback), Checkpoint)]
        plots: list[tuple[type, dict[str, Any]]] = [(DetectionPlots, {})]
        if trainer["check_val_every_n_epoch"] is None:  # plots at the interval of validations, given in batches
            every = max(1, int(trainer["val_check_interval"]) // trainer["accumulate_grad_batches"])
            plots.append((LossPlots, {"every_n_steps": every}))
            for callback in callbacks:
                if issubclass(_class(callback), EveryNSteps):
                    callback["init_args"]["every_n_steps"] = min(every, callback["init_args"]["every_n_steps"])
        for cls, arguments in plots:
            if not any(issubclass(_class(c), cls) for c in callbacks):
                path = f"lit_dense.callbacks.{cls.__name__}"
                callbacks.append(Namespace(class_path=path, init_args=Namespace(**arguments)))
        trainer["callbacks"] = callbacks
        if (self.folder / CHECKPOINT).exists():
            _check_own(self.folder / CHECKPOINT)
            config["ckpt_path"] = str(self.folder / CHECKPOINT)

    def after_fit(self) -> None:
        """Evaluate the final weights, unless the last validation already did, and write the result."""
        if self.recorder.evaluation is None or self.recorder.evaluated_step != self.trainer.global_step:
            self.trainer.validate(self.model, datamodule=self.datamodule, verbose=False)
        if self.trainer.is_global_zero:
            self.write_result()

    def write_result(self) -> None:
        """Write the results; the result file marks the run as finished, and the committed files are made from it."""
        evaluation = self.recorder.evaluation
        evaluation.rows.save(self.folder / ROWS)
        save_tables(self.folder / TABLES, evaluation)
        counts = getattr(self.datamodule, "class_counts", None)
        result = {
            **self.recorder.summary(),
            "steps": self.trainer.global_step,
            "training_boxes": None if counts is None else counts.instances.tolist(),
            "machine": _machine(self.trainer.strategy.root_device),
            "versions": versions(self.recorder.codes),
            "data": self.recorder.data,
        }
        write_json(self.folder / RESULT, result)
        export(self.folder)


def _check_own(path: Path) -> None:
    try:
        check_checkpoint(path)
    except UsageError as error:
        raise UsageError(f"{error} Delete it to begin this run again.") from error


def _class(callback: Any) -> type:
    """Return the class of a callback in a configuration."""
    if not isinstance(callback, Mapping | Namespace):
        return type(callback)
    module, _, name = callback["class_path"].rpartition(".")
    cls: type = getattr(sys.modules[module], name)  # the parser has imported it
    return cls


def _machine(device: torch.device) -> dict[str, Any]:
    cuda = device.type == "cuda"
    return {
        "system": platform.platform(),
        "processor": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if cuda else device.type,
    }


def _cpu_name() -> str:
    """Return the CPU's name if the system reports it, else the machine type."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def train(folder: Path) -> None:
    """Train the run of a folder, or resume it."""
    run = Run.load(folder)
    config = folder / CONFIG
    write_json(config, run.config)  # the planned configuration; the original files may have changed
    with without_args_warning():
        RunCLI(folder, args=["fit", f"--config={config}"])


def main(arguments: Sequence[str]) -> int:
    """Train one run.

    Args:
        arguments: The folder, and ``WATCH`` if standard input is a pipe from the process that started this one.

    Returns:
        The exit status.
    """
    if WATCH in arguments:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        train(Path(arguments[0]).resolve())
    except Exception as error:
        message = message_of(error)
        if message is None:
            raise
        print(f"lit-dense: {message}", file=sys.stderr)
        return 1
    return 0


def _end_with_parent() -> None:
    """Exit when the parent process ends, which closes the pipe; the last checkpoint is kept."""
    os.read(0, 1)  # not through sys.stdin: a thread must not hold its lock at exit
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
