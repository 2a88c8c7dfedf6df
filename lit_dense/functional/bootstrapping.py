"""Targets that trust the prediction in part, bootstrapping (https://arxiv.org/abs/1412.6596), and smoothed targets."""

from __future__ import annotations  # torch 2.4 cannot compile nested functions annotated with X | None

from typing import Literal, NamedTuple

import torch
from torch import Tensor

BootstrapForm = Literal["soft", "hard"]
PAPER_BETA = {"soft": 0.95, "hard": 0.8}
"""The paper's share of the label in the target, by form."""


class TargetChange(NamedTuple):
    """Label smoothing and bootstrapping (https://arxiv.org/abs/1412.6596) of the targets of a loss.

    Args:
        smoothing: Share of a target that is spread evenly, in [0, 1].
        form: ``soft`` mixes the label with the probability, ``hard`` with the decision; None leaves it.
        beta: Share of the label in the mixture, in [0, 1].
    """

    smoothing: float = 0.0
    form: BootstrapForm | None = None
    beta: float = 1.0

    def mixed(self, target: Tensor, p: Tensor) -> Tensor:
        """Mix a binary target with the detached prediction: ``beta * y + (1 - beta) * z``.

        Args:
            target: Targets y, in [0, 1], of the shape of p or broadcast to it.
            p: Probabilities of any shape.

        Returns:
            Targets of the shape of p.

        Example:
            >>> TargetChange(form="hard", beta=0.8).mixed(torch.tensor([1.0, 0.0]), torch.tensor([0.3, 0.6]))
            tensor([0.8000, 0.2000])
        """
        if self.form is None:
            return target.expand_as(p)
        z = p.detach() if self.form == "soft" else (p.detach() > 0.5).to(p.dtype)
        return self.beta * target + (1 - self.beta) * z

    def mixed_rows(self, column: Tensor, p: Tensor, known: Tensor | None = None) -> Tensor:
        """Compute the targets of a softmax: one-hot, smoothed over all columns, mixed with the detached prediction.

        Args:
            column: Column of each row's label [n].
            p: Probabilities of the columns [n, C].
            known: Whether smoothing may give a column a share; by default all [n, C].

        Returns:
            Targets, which add up to 1 in each row [n, C].

        Example:
            >>> TargetChange(smoothing=0.2).mixed_rows(torch.tensor([0]), torch.tensor([[0.5, 0.5]]))
            tensor([[0.9000, 0.1000]])
        """
        columns = torch.arange(p.shape[1], device=p.device)
        own = columns == column.unsqueeze(1)
        if known is None:
            on, off = 1 - self.smoothing + self.smoothing / p.shape[1], self.smoothing / p.shape[1]
            target = torch.where(own, on, off).to(p.dtype)
        else:
            share = known * (self.smoothing / known.sum(1, keepdim=True)).to(p.dtype)
            target = torch.where(own, 1 - self.smoothing + share, share)
        if self.form is None:
            return target
        best = columns == p.detach().argmax(1, keepdim=True)
        return self.beta * target + (1 - self.beta) * (p.detach() if self.form == "soft" else best.to(p.dtype))
