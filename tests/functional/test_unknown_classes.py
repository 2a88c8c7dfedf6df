"""Logits of classes that an image is not annotated for."""

import pytest
import torch

from lit_dense.functional import seesaw_loss, softmax_loss
from lit_dense.functional.bootstrapping import TargetChange
from lit_dense.functional.unknown_classes import (
    hide_unknown,
    is_hidden,
    seesaw_without_unknown,
    softmax_without_unknown,
    unknown_negatives,
)

LABELS = torch.tensor([0, 1, -1, -1, -2])
IMAGES = torch.tensor([0, 0, 0, 1, 1])
UNKNOWN = torch.tensor([[True, False, True], [False, False, False]])


def masks(extra):
    unknown = torch.cat([UNKNOWN, torch.zeros(2, extra, dtype=torch.bool)], 1)
    return unknown_negatives(LABELS, unknown, IMAGES)


def logits_of(extra, seed=0):
    return torch.randn(5, 3 + extra, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_unknown_negatives__keep_the_class_of_a_positive():
    assert masks(0)[:3].tolist() == [[False, False, True], [True, False, True], [True, False, True]]
    assert not masks(0)[3].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_hide_unknown__any_type_can_hold_the_hidden_logit(dtype):
    hidden = hide_unknown(torch.zeros(1, 2, dtype=dtype), torch.tensor([[True, False]]))
    assert hidden.isfinite().all()
    assert is_hidden(hidden).tolist() == [[True, False]]


def test_softmax__background_of_an_image_includes_its_unknown_classes():
    logits = logits_of(1)
    values = softmax_loss(softmax_without_unknown(logits, LABELS, masks(1)), LABELS)
    p = logits.softmax(1)
    torch.testing.assert_close(values[2], -(p[2, 0] + p[2, 2] + p[2, 3]).log())
    torch.testing.assert_close(values[3], -p[3, 3].log())  # all classes are known
    torch.testing.assert_close(values[0], -(p[0, 0] / (1 - p[0, 2])).log())  # the unknown class is left out
    assert values[4] == 0


def test_softmax__an_unlabelled_object_does_not_lower_the_logit_of_its_class():
    logits = logits_of(1).requires_grad_()
    values = softmax_loss(softmax_without_unknown(logits, LABELS, masks(1)), LABELS)
    (slopes,) = torch.autograd.grad(values.sum(), logits)
    assert (slopes[2, [0, 2]] <= 0).all()  # a step against the slope raises it
    assert slopes[1, [0, 2]].tolist() == [0, 0]


def test_softmax__smoothing_gives_unknown_classes_no_share():
    change = TargetChange(smoothing=0.3)
    logits, labels = logits_of(1)[:2], LABELS[:2]
    values = softmax_loss(softmax_without_unknown(logits, labels, masks(1)[:2]), labels, 1.0, change, has_unknown=True)
    expected = torch.nn.functional.cross_entropy(logits[1:, [1, 3]], torch.tensor([0]), label_smoothing=0.3)
    torch.testing.assert_close(values[1], expected)


def test_seesaw__background_of_an_image_includes_its_unknown_classes():
    logits, counts = logits_of(2), torch.tensor([9.0, 9.0, 9.0])
    positives = (LABELS >= 0).nonzero().squeeze(1)
    hidden = seesaw_without_unknown(logits, LABELS, masks(2))
    values = seesaw_loss(hidden, LABELS, counts, positives)
    p, objectness = logits[:, :3].softmax(1), logits[:, 3:].softmax(1)
    torch.testing.assert_close(values[2], -(objectness[2, 1] + objectness[2, 0] * (p[2, 0] + p[2, 2])).log())
    torch.testing.assert_close(values[3], -objectness[3, 1].log())
    assert torch.equal(hidden[3], logits[3])


def test_seesaw__of_an_image_without_known_classes_is_finite():
    logits, labels = logits_of(2)[:1].requires_grad_(), torch.tensor([-1])
    mask = torch.tensor([[True, True, True, False, False]])
    value = seesaw_loss(seesaw_without_unknown(logits, labels, mask), labels, torch.ones(3), labels[:0])
    assert value.item() == pytest.approx(0, abs=1e-6)
    (slopes,) = torch.autograd.grad(value.sum(), logits)
    assert slopes.isfinite().all()
