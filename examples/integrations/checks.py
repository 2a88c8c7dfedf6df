"""Checks of lit_dense in other projects, used by the examples."""

from copy import deepcopy
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from lit_dense import SwapLoss, patch, unpatch
from lit_dense.detectors import attached, find_detector


def same_as_stock(detector: nn.Module, images: list[Tensor], targets: list[dict[str, Tensor]]) -> None:
    """Check that lit_dense and torchvision compute the same terms and gradients of the detector's own loss."""
    detector.train()
    stock, stock_gradient = terms_and_gradient(detector, images, targets)
    seen: list[Tensor] = []
    for stage in find_detector(detector).stages:
        criterion = patch(detector, stage=stage)
        criterion.loss.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    first_label = find_detector(detector).columns(find_detector(detector).stages[0]).first_label
    terms, gradient = terms_and_gradient(detector, images, targets)
    unpatch(detector)

    torch.testing.assert_close(terms, stock)
    torch.testing.assert_close(gradient, stock_gradient, rtol=1e-4, atol=1e-6)
    labels = seen[-1][seen[-1] >= 0] + first_label  # of the last stage, which classifies
    print(f"labels of positives, by class: {labels.bincount().tolist()}")
    for name in stock:
        print(f"{name}: torchvision {float(stock[name]):.6f}, lit_dense {float(terms[name]):.6f}")
    print(f"largest difference of the gradient: {float((gradient - stock_gradient).abs().max()):.1e}")


def terms_and_gradient(
    detector: nn.Module, images: list[Tensor], targets: list[dict[str, Tensor]]
) -> tuple[dict[str, Tensor], Tensor]:
    """Compute the loss terms of a batch and the gradient of their sum, with a fixed seed for random sampling."""
    torch.manual_seed(0)
    terms = detector(images, targets)
    weights = [p for p in detector.parameters() if p.requires_grad]
    gradient = torch.autograd.grad(sum(terms.values()), weights, materialize_grads=True)
    return {k: v.detach() for k, v in terms.items()}, torch.cat([g.flatten() for g in gradient])


class StateIsKept(Callback):
    """Stops the run if validation changes the loss's state, or if a resumed run starts with another state.

    Args:
        swap: The callback to watch.
        expected: The state in the checkpoint, for a resumed run.
    """

    def __init__(self, swap: SwapLoss, expected: dict[str, Any] | None = None) -> None:
        self.swap, self.expected = swap, expected
        self.validations = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.expected is not None:
            torch.testing.assert_close(self.state(), self.expected["criterion"], rtol=0, atol=0)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.before = deepcopy(self.state())

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        torch.testing.assert_close(self.state(), self.before, rtol=0, atol=0)
        self.validations += 1

    def state(self) -> dict[str, Any]:
        return self.swap.state_dict()["criterion"]


def is_stock(detector: nn.Module) -> bool:
    """Return whether a model computes its own loss, without traces of lit_dense."""
    return attached(detector) is None and not any("lit_dense" in str(hook) for hook in hooks_of(detector))


def hooks_of(model: nn.Module) -> list[Any]:
    """Return all forward hooks and pre-hooks of a model."""
    return [h for m in model.modules() for h in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())]
