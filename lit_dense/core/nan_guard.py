"""Stops a training run at the first loss that is no number, with a message that helps."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .component import Component
from .errors import NonFiniteLossError


class _Step(NamedTuple):
    """The terms of one step and what to say of it; nothing here waits for a GPU unless a term is bad."""

    terms: list[str]
    values: Tensor
    targets: Sequence[Mapping[str, Tensor]]
    criterion: nn.Module
    stage: str = ""

    def raise_if_bad(self) -> None:
        if bool(self.values.isfinite().all()):
            return
        named = zip(self.terms, self.values.tolist(), strict=True)
        bad = ", ".join(f"{name} = {value}" for name, value in named if not math.isfinite(value))
        where = f" in stage {self.stage!r}" if self.stage else ""
        raise NonFiniteLossError(
            f"A loss is not finite: {bad}. Computed by {self._parts()}{where}, on {self._images()}. Try a lower "
            "learning rate or a longer warm-up, gradient clipping (--trainer.gradient_clip_val=10), precision 32-true "
            "or bf16-mixed in place of 16-mixed, and look at the boxes of these images."
        )

    def _images(self) -> str:
        ids = [t["image_id"] for t in self.targets if "image_id" in t]
        if len(ids) < len(self.targets):
            return f"a batch of {len(self.targets)} images whose targets have no image_id"
        return f"images {', '.join(str(i.item() if isinstance(i, Tensor) else i) for i in ids)}"

    def _parts(self) -> str:
        return ", ".join(dict.fromkeys(type(m).__name__ for m in self.criterion.modules() if isinstance(m, Component)))


class NaNGuard:
    """Looks whether each loss term is finite.

    On the CPU a bad term stops the run before its gradient is computed. On a GPU waiting for the value would stall
    every step, so it is copied while the step goes on and looked at in the next one, that of each stage for itself.
    """

    def __init__(self) -> None:
        self._pending: dict[str, tuple[_Step, torch.cuda.Event]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"_pending": {}}  # an event cannot be copied, and a copy has no step behind it

    def __call__(
        self,
        terms: Mapping[str, Tensor],
        targets: Sequence[Mapping[str, Tensor]],
        criterion: nn.Module,
        stage: str = "",
    ) -> None:
        """Check the terms of a batch, or on a GPU those of the batch before.

        Args:
            terms: Loss terms by name.
            targets: The batch's targets; their ``image_id`` is named where they have one.
            criterion: What computed the terms.
            stage: The detector's stage that they are of.

        Raises:
            NonFiniteLossError: If a term is NaN or infinite.
        """
        values = torch.stack([t.detach().float() for t in terms.values()])
        if not values.is_cuda:
            _Step(list(terms), values, targets, criterion, stage).raise_if_bad()
            return
        self._look_at(stage)
        copy = torch.empty(values.shape, pin_memory=True).copy_(values, non_blocking=True)
        ready = torch.cuda.Event()
        ready.record()
        self._pending[stage] = (_Step(list(terms), copy, targets, criterion, stage), ready)

    def flush(self) -> None:
        """Look at steps that are still to be looked at, before a checkpoint keeps what came of them.

        Raises:
            NonFiniteLossError: If a term of one is NaN or infinite.
        """
        for stage in tuple(self._pending):
            self._look_at(stage)

    def _look_at(self, stage: str) -> None:
        if stage in self._pending:
            step, ready = self._pending.pop(stage)
            ready.synchronize()
            step.raise_if_bad()
