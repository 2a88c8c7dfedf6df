"""The callback that watches a run of a comparison: curves, times, memory, and the evaluation at the end."""

import sys
import time
from collections import deque
from collections.abc import Mapping
from statistics import median
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from ..metrics import DetectionMAP

KEPT_TIMES = 2000
"""Of how many steps, the last ones, times are kept: enough for a median, and a checkpoint stays small."""


class Recorder(Callback):
    """Keeps what the report of a comparison needs to know of a run, over interruptions too.

    Attributes:
        curve: For each validation ``step``, ``map`` and ``map_50``.
        evaluation: What the metric found at the last validation; None before the first of this process.
        evaluated_step: The step of that validation.
    """

    def __init__(self) -> None:
        self.curve: list[dict[str, float]] = []
        self.evaluation: Any = None
        self.evaluated_step = -1
        self.numbers: dict[str, float] = {}
        self._times: deque[float] = deque(maxlen=KEPT_TIMES)
        self._seconds, self._memory = 0.0, 0.0
        self._cuda: float | None = None
        self._batch_began = self._part_began = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of this part of the run."""
        self._part_began = time.perf_counter()

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
        """Stop it; validation comes later."""
        self._times.append(_now(pl_module) - self._batch_began)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep what the metric found."""
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
        """Everything that an interruption must not lose."""
        return {
            "curve": self.curve,
            "times": list(self._times),
            "seconds": self._seconds_so_far(),
            "memory": self._peak_memory(),
            "cuda": self._peak_cuda(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.curve = state_dict["curve"]
        self._times.extend(state_dict["times"])
        self._seconds, self._memory = state_dict["seconds"], state_dict["memory"]
        self._cuda = state_dict["cuda"]

    def summary(self) -> dict[str, Any]:
        """The numbers of a finished run."""
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
    """The time, when the device has done all that it was given."""
    if pl_module.device.type == "cuda":
        torch.cuda.synchronize(pl_module.device)
    return time.perf_counter()


def _resident() -> float:
    """Most bytes of main memory that this process has had; 0 where the system does not tell."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return 0.0
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
