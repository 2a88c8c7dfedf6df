"""What both examples check of lit_dense in somebody else's project."""

from copy import deepcopy
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.retinanet import RetinaNetHead

from lit_dense import SwapLoss, patch, unpatch


def same_as_stock(detector: RetinaNet, images: list[Tensor], targets: list[dict[str, Tensor]]) -> None:
    """Focal loss of lit_dense and of torchvision agree on a batch: terms, gradient, and the labels they are told."""
    detector.train()
    theirs: list[Tensor] = []
    stock_loss = detector.head.classification_head.compute_loss

    def note(targets: Any, outputs: Any, matched_idxs: list[Tensor]) -> Tensor:
        theirs.extend(t["labels"][m[m >= 0]] for t, m in zip(targets, matched_idxs, strict=True))
        return stock_loss(targets, outputs, matched_idxs)

    detector.head.classification_head.compute_loss = note
    stock, stock_gradient = terms_and_gradient(detector, images, targets)
    del detector.head.classification_head.compute_loss

    ours: list[Tensor] = []
    criterion = patch(detector, loss="focal")
    criterion.loss.register_forward_pre_hook(lambda _, args: ours.append(args[1]))
    terms, gradient = terms_and_gradient(detector, images, targets)
    unpatch(detector)

    assert torch.equal(torch.cat(theirs), ours[0][ours[0] >= 0]), "the labels differ"
    torch.testing.assert_close(terms, stock)
    torch.testing.assert_close(gradient, stock_gradient, rtol=1e-4, atol=1e-6)
    print(f"labels of positive anchors, by class: {torch.cat(theirs).bincount().tolist()}, the same in both")
    for name in stock:
        print(f"{name}: torchvision {float(stock[name]):.6f}, lit_dense {float(terms[name]):.6f}")
    print(f"largest difference of the gradient: {float((gradient - stock_gradient).abs().max()):.1e}")


def terms_and_gradient(
    detector: RetinaNet, images: list[Tensor], targets: list[dict[str, Tensor]]
) -> tuple[dict[str, Tensor], Tensor]:
    """The loss terms of a batch and the gradient of their sum."""
    terms = detector(images, targets)
    weights = [p for p in detector.parameters() if p.requires_grad]
    gradient = torch.autograd.grad(sum(terms.values()), weights, materialize_grads=True)
    return {k: v.detach() for k, v in terms.items()}, torch.cat([g.flatten() for g in gradient])


class StateIsKept(Callback):
    """Stops the run if validation moves the loss's state, or if a resumed run starts with another state.

    Args:
        swap: The callback whose state is watched.
        expected: The state that the checkpoint holds, in a resumed run.
    """

    def __init__(self, swap: SwapLoss, expected: dict[str, Any] | None = None) -> None:
        self.swap, self.expected = swap, expected
        self.validations = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.expected is not None:
            torch.testing.assert_close(self.swap.state_dict(), self.expected, rtol=0, atol=0)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.before = deepcopy(self.swap.state_dict())

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        torch.testing.assert_close(self.swap.state_dict(), self.before, rtol=0, atol=0)
        self.validations += 1


def is_stock(detector: RetinaNet) -> bool:
    """Whether a model has the head it came with, and nothing of lit_dense."""
    return type(detector.head) is RetinaNetHead and not detector.anchor_generator._forward_pre_hooks
