"""A callback that records a run of a comparison: learning curve, times, memory and the final evaluation."""

import sys
import time
from collections import deque
from collections.abc import Mapping
from statistics import median
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from ..core.errors import UsageError
from ..metrics import DetectionMAP
from .provenance import NOT_RECORDED, code_digest, fingerprints, same_data

KEPT_TIMES = 2000
"""Number of last steps with recorded times: enough for a median, and small in a checkpoint."""


class Recorder(Callback):
    """Records the data of a run that the report of a comparison needs; the data survives interruptions.

    Attributes:
        curve: ``step``, ``map`` and ``map_50`` of each validation.
        evaluation: The metric's evaluation of the last validation; None before the first validation of this process.
        evaluated_step: The step of that validation.
        codes: Digests of the code that trained the run, in order; one unless the code changed after an interruption.
        data: Fingerprints of the training and the validation set.
    """

    def __init__(self) -> None:
        self.curve: list[dict[str, float]] = []
        self.evaluation: Any = None
        self.evaluated_step = -1
        self.numbers: dict[str, float] = {}
        self.codes: list[str] = []
        self.data: dict[str, Any] = {}
        self._times: deque[float] = deque(maxlen=KEPT_TIMES)
        self._seconds, self._memory = 0.0, 0.0
        self._cuda: float | None = None
        self._batch_began = self._part_began = 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the data, also of a run that has no step left.

        Raises:
            UsageError: If an interrupted run began with other data.
        """
        data = fingerprints(trainer.datamodule.data)  # type: ignore[attr-defined]  # set by Trainer.fit
        for split, before in self.data.items():
            if not same_data(before, data.get(split, {})):
                raise UsageError(
                    f"The {split} set has changed since this run was interrupted. Restore its images and annotations, "
                    f"or delete {trainer.default_root_dir} to begin this run again with the new data."
                )
        self.data = data

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of this part of the run, and note its code."""
        self._part_began = time.perf_counter()
        self.codes = list(dict.fromkeys([*self.codes, code_digest()]))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Start the clock of a step."""
        self._batch_began = _now(pl_module)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Stop the clock of a step; it does not include validation."""
        self._times.append(_now(pl_module) - self._batch_began)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the metric's results."""
        if trainer.sanity_checking:
            return
        metric = next(module for module in pl_module.modules() if isinstance(module, DetectionMAP))
        self.evaluation = metric.evaluation
        self.evaluated_step = trainer.global_step
        logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.numbers = {name[4:]: value for name, value in logged.items() if name.startswith("val_")}
        point = {"step": trainer.global_step, "map": self.numbers["map"], "map_50": self.numbers["map_50"]}
        self.curve = [*(p for p in self.curve if p["step"] < trainer.global_step), point]

    def state_dict(self) -> dict[str, Any]:
        """Return the recorded data for the checkpoint."""
        return {
            "curve": self.curve,
            "codes": self.codes,
            "data": self.data,
            "times": list(self._times),
            "seconds": self._seconds_so_far(),
            "memory": self._peak_memory(),
            "cuda": self._peak_cuda(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the recorded data."""
        self.curve = state_dict["curve"]
        self.codes, self.data = state_dict.get("codes", [NOT_RECORDED]), state_dict.get("data", {})
        self._times.extend(state_dict["times"])
        self._seconds, self._memory = state_dict["seconds"], state_dict["memory"]
        self._cuda = state_dict["cuda"]

    def summary(self) -> dict[str, Any]:
        """Return the numbers of a finished run."""
        return {
            "numbers": self.numbers,
            "curve": self.curve,
            "step_seconds": median(self._times) if self._times else None,
            "seconds": self._seconds_so_far(),
            "memory_bytes": self._peak_memory(),
            "cuda_bytes": self._peak_cuda(),
        }

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self._seconds, self._part_began = self._seconds_so_far(), 0.0

    def _seconds_so_far(self) -> float:
        return self._seconds + (time.perf_counter() - self._part_began if self._part_began else 0.0)

    def _peak_memory(self) -> float:
        return max(self._memory, _resident())

    def _peak_cuda(self) -> float | None:
        if not torch.cuda.is_available():
            return self._cuda
        return max(self._cuda or 0.0, float(torch.cuda.max_memory_allocated()))


def _now(pl_module: LightningModule) -> float:
    """Return the time after synchronising the device."""
    if pl_module.device.type == "cuda":
        torch.cuda.synchronize(pl_module.device)
    return time.perf_counter()


def _resident() -> float:
    """Return the peak resident memory of this process in bytes; 0 if the system does not report it."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return 0.0
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
