"""Activation checkpointing around and inside a detector."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from lit_dense.core.errors import UsageError
from lit_dense.detectors import patch
from tests.builders.detectors import random_batch, small_retinanet


def patched(loss="focal", normalizer="ema"):
    model = small_retinanet(3)
    patch(model, loss=loss, normalizer=normalizer)
    return model


def gradients(model, call):
    for step in range(2):  # the second one has a moving average
        torch.manual_seed(step)
        images, targets = random_batch([2, 1], 3)
        model.zero_grad()
        sum(call(model, images, targets).values()).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def plain(model, images, targets):
    return model(images, targets)


def test_criterion__refuses_to_be_computed_again_in_the_backward_pass():
    def repeated(model, images, targets):
        return checkpoint(model, images, targets, use_reentrant=False)

    for loss in ("focal", "ghm"):
        with pytest.raises(UsageError, match=r"activation checkpointing .* Apply it to the backbone"):
            gradients(patched(loss), repeated)


def test_criterion__a_checkpointed_backbone_has_the_same_gradients():
    model = patched()
    forward = model.backbone.forward
    expected = gradients(patched(), plain)
    model.backbone.forward = lambda x: checkpoint(forward, x, use_reentrant=False)
    torch.testing.assert_close(gradients(model, plain), expected)


def test_criterion__a_reentrant_checkpoint_has_the_same_gradients():
    def repeated(model, images, targets):
        anchor = torch.zeros(1, requires_grad=True)  # reentrant checkpoints need an input with a gradient
        terms = checkpoint(lambda _: tuple(model(images, targets).values()), anchor, use_reentrant=True)
        return dict(enumerate(terms))

    torch.testing.assert_close(gradients(patched(), repeated), gradients(patched(), plain))
