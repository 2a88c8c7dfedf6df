"""What every loss keeps for classes that an image is not annotated for."""

from dataclasses import replace

import pytest
import torch

from lit_dense.core.errors import UsageError
from lit_dense.criterion import Criterion
from lit_dense.losses import LOSSES
from tests.builders.detectors import COUNTS, NUM_CLASSES
from tests.builders.samples import samples_of

SMOOTHED = [
    {"class_path": name, "init_args": {"label_smoothing": 0.2, "bootstrap": "soft"}} for name in ("bce", "softmax")
]
SPECS = [*sorted(LOSSES.points), *SMOOTHED, {"class_path": "federated", "init_args": {"loss": "ghm"}}]
UNKNOWN = [[False, True, False, True], [False] * NUM_CLASSES, [True, False, True, False]]


def batch_of(spec):
    """Samples of three images: in the first two classes are unknown, and in the last two others."""
    samples = samples_of((3, 0, 4), loss=spec)
    extra = samples.logits.shape[1] - NUM_CLASSES
    unknown = torch.cat([torch.tensor(UNKNOWN), torch.zeros(3, extra, dtype=torch.bool)], 1)
    return replace(samples, context=None, logits=samples.logits.detach().double(), unknown=unknown)


def step(spec, samples):
    """The classification term, the slopes of the logits and the state of a criterion after two steps."""
    criterion = Criterion(loss=spec, box_loss=None, class_counts=COUNTS)
    logits = samples.logits.clone().requires_grad_()
    for _ in range(2):
        term = criterion(replace(samples, logits=logits))["classification"]
    (slopes,) = torch.autograd.grad(term, logits)
    return term, slopes, criterion.state_dict()


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_losses__no_unknown_class_has_a_negative(spec):
    samples = batch_of(spec)
    term, slopes, state = step(spec, samples)
    hidden = samples.unknown_negatives
    assert hidden.any()
    assert term.isfinite()
    assert slopes.isfinite().all()
    if samples.logits.shape[1] == NUM_CLASSES:
        assert (slopes[hidden] == 0).all()
        changed = replace(samples, logits=torch.where(hidden, 7.0, samples.logits))
        other_term, other_slopes, other_state = step(spec, changed)
        torch.testing.assert_close(other_term, term)
        torch.testing.assert_close(other_slopes, slopes)
        for name, value in state.items():
            if isinstance(value, torch.Tensor):
                torch.testing.assert_close(other_state[name], value, equal_nan=True)
    else:  # an object of an unknown class is background or that class: its logit is never pushed down
        assert (slopes[hidden] <= 0).all()


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_losses__an_image_that_knows_all_classes_has_its_usual_loss(spec):
    samples = batch_of(spec)
    nothing_unknown = replace(samples, unknown=torch.zeros_like(samples.unknown))
    expected, slopes, _ = step(spec, replace(samples, unknown=None))
    term, own, _ = step(spec, nothing_unknown)
    torch.testing.assert_close(term, expected)
    torch.testing.assert_close(own, slopes)


@pytest.mark.parametrize("loss", ["focal", "softmax", "seesaw"])
def test_criterion__unknown_classes_of_a_custom_head(loss):
    samples = batch_of(loss)
    short = replace(samples, unknown=samples.unknown[:, :NUM_CLASSES])
    terms = [Criterion(loss=loss, box_loss=None)(one)["classification"] for one in (samples, short)]
    assert torch.equal(*terms)
    for wrong in (samples.unknown[:2], samples.unknown[:, :2], samples.unknown.long()):
        with pytest.raises(UsageError, match=r"unknown must be bool \[3, 4\], one row per image"):
            Criterion(loss=loss, box_loss=None)(replace(samples, unknown=wrong))


def test_criterion__weighters_do_not_see_unknown_classes():
    samples = batch_of("focal")
    samples.logits[samples.unknown_negatives] = 9.0
    seen = Criterion(box_loss=None).in_this_step(samples)
    assert seen.best_scores[samples.labels == -1].max() < 0.9


def test_criterion__smoothed_targets_of_unknown_classes_have_no_term():
    samples = batch_of("bce")
    positive = samples.positives[samples.image_idxs[samples.positives] == 0][:1]
    matched = torch.full_like(samples.matched_idxs, -2).index_put((positive,), samples.matched_idxs[positive])
    one = replace(samples, matched_idxs=matched)
    spec = {"class_path": "bce", "init_args": {"label_smoothing": 0.2}}
    criterion = Criterion(loss=spec, box_loss=None, normalizer="none")
    with torch.no_grad():
        term = criterion(one)["classification"]
        known = ~one.unknown_negatives[positive[0]]
        label = int(known[: int(one.labels[positive])].sum())
        expected = LOSSES.build(spec)(one.logits[positive][:, known], torch.tensor([label]))
    torch.testing.assert_close(term, expected.sum())
