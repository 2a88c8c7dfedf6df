"""A guard that stops training at the first loss term that is NaN or infinite, and a check of weights."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from .component import Component
from .errors import NonFiniteLossError


class _Step(NamedTuple):
    """The loss terms of one step, and the data for an error message."""

    terms: list[str]
    values: Tensor
    targets: Sequence[Mapping[str, Tensor]]
    criterion: nn.Module
    stage: str = ""

    def raise_if_non_finite(self) -> None:
        values = self.values.tolist()
        if all(map(math.isfinite, values)):
            return
        named = zip(self.terms, values, strict=True)
        bad = ", ".join(f"{name} = {value}" for name, value in named if not math.isfinite(value))
        where = f" in stage {self.stage!r}" if self.stage else ""
        raise NonFiniteLossError(
            f"A loss is not finite: {bad}. Computed by {self._components()}{where}, on {self._images()}. Try a lower "
            "learning rate or a longer warm-up, gradient clipping (--trainer.gradient_clip_val=10), precision 32-true "
            "or bf16-mixed in place of 16-mixed, and look at the boxes of these images."
        )

    def _images(self) -> str:
        ids = [t["image_id"] for t in self.targets if "image_id" in t]
        if len(ids) < len(self.targets):
            return f"a batch of {len(self.targets)} images whose targets have no image_id"
        return f"images {', '.join(str(i.item() if isinstance(i, Tensor) else i) for i in ids)}"

    def _components(self) -> str:
        return ", ".join(dict.fromkeys(type(m).__name__ for m in self.criterion.modules() if isinstance(m, Component)))


class NaNGuard:
    """A check that each loss term is finite.

    On the CPU a non-finite term stops the run before its gradient is computed. On a GPU reading the value at once would
    synchronise the device in every step. There the value is copied asynchronously and checked in the next step, for
    each stage of the detector separately.
    """

    def __init__(self) -> None:
        self._pending: dict[str, tuple[_Step, torch.cuda.Event]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"_pending": {}}  # events cannot be copied, and a copy has no previous step

    def __call__(
        self,
        terms: Mapping[str, Tensor],
        targets: Sequence[Mapping[str, Tensor]],
        criterion: nn.Module,
        stage: str = "",
    ) -> None:
        """Check the loss terms of a batch; on a GPU those of the previous batch.

        Args:
            terms: Loss terms by name.
            targets: Targets of the batch; the error message names their ``image_id``, if they have one.
            criterion: The criterion that computed the terms.
            stage: Name of the detector's stage.

        Raises:
            NonFiniteLossError: If a term is NaN or infinite.
        """
        values = torch.stack([t.detach().float() for t in terms.values()])
        if not values.is_cuda:
            _Step(list(terms), values, targets, criterion, stage).raise_if_non_finite()
            return
        self._check_pending(stage)
        copy = torch.empty(values.shape, pin_memory=True).copy_(values, non_blocking=True)
        ready = torch.cuda.Event()
        ready.record()
        self._pending[stage] = (_Step(list(terms), copy, targets, criterion, stage), ready)

    def flush(self) -> None:
        """Check the steps that are still pending; called before a checkpoint saves their result.

        Raises:
            NonFiniteLossError: If a term of such a step is NaN or infinite.
        """
        for stage in tuple(self._pending):
            self._check_pending(stage)

    def _check_pending(self, stage: str) -> None:
        if stage in self._pending:
            step, ready = self._pending.pop(stage)
            ready.synchronize()
            step.raise_if_non_finite()


def check_finite_weights(module: nn.Module) -> None:
    """Check that all trained weights are finite; called before a checkpoint replaces one that can be resumed.

    A finite loss can have a gradient that is not, and an optimiser step can overflow. The loss of the next step shows
    it, which is too late for a checkpoint between the two.

    Args:
        module: The module whose weights a checkpoint will contain.

    Raises:
        NonFiniteLossError: If a trained weight is NaN or infinite.
    """
    weights = {name: p.detach() for name, p in module.named_parameters() if p.requires_grad and not is_lazy(p)}
    bad = [name for name, weight in weights.items() if not weight.isfinite().all()]
    if bad:
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise NonFiniteLossError(
            f"Weights are not finite after the last step, although its loss was finite: {bad[0]}{more} of "
            f"{len(weights)} trained parameters. This checkpoint is not written. Resume from an earlier one, with a "
            "lower learning rate, a longer warm-up or gradient clipping (--trainer.gradient_clip_val=10)."
        )
