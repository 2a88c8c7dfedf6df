from dataclasses import replace

import pytest
import torch

from lit_dense.criterion import Criterion
from lit_dense.errors import UsageError
from lit_dense.losses import DenseLoss
from lit_dense.normalizers import EMANormalizer, NativeNormalizer
from lit_dense.reduce import Reduce
from lit_dense.samples import DenseSamples, NativeDivisor, StepContext


class Given(DenseLoss):
    """The logit itself is the loss."""

    def forward(self, logits, labels, samples):
        return logits[:, 0]


def images_with(sums, positives):
    """Samples whose images have these sums of losses and numbers of positives, on four anchors each."""
    sums = torch.tensor(sums)
    matched = torch.full((len(sums), 4), -1)
    for image, count in enumerate(positives):
        matched[image, :count] = image
    return DenseSamples(
        logits=(sums / 4).repeat_interleave(4)[:, None],
        deltas=torch.zeros(4 * len(sums), 4),
        anchors=torch.tensor([[0.0, 0.0, 8.0, 8.0]]).repeat(4 * len(sums), 1),
        matched_idxs=matched.flatten(),
        gt_boxes=torch.tensor([[0.0, 0.0, 8.0, 8.0]]).repeat(len(sums), 1),
        gt_labels=torch.zeros(len(sums), dtype=torch.long),
        gt_image_idxs=torch.arange(len(sums)),
        num_images=len(sums),
        image_idxs=torch.arange(len(sums)).repeat_interleave(4),
        box_coder=Coder(),
        context=StepContext(Reduce()),
    )


class Coder:
    def encode_single(self, reference_boxes, proposals):
        return reference_boxes - proposals

    def decode_single(self, rel_codes, boxes):
        return rel_codes + boxes


@pytest.mark.parametrize(
    ("normalizer", "expected"),
    [("image", 2.3), ("batch", 2.725), ("ema", 10.9 / (0.9 * 100 + 0.1 * 4)), ("none", 10.9)],
)
def test_worked_values(normalizer, expected):
    samples = images_with([6.0, 4.0, 0.9], [3, 1, 0])
    value = Criterion(Given(), normalizer=normalizer)(samples)["classification"]
    torch.testing.assert_close(value, torch.tensor(expected))


def native(count, factors, least=1.0):
    """Two images of two anchors whose detector divides by a number of its own."""
    samples = replace(images_with([6.0, 4.0], [3, 1]), native=NativeDivisor(torch.tensor(count), factors, least))
    return Criterion(Given(), box_loss=None, normalizer=NativeNormalizer())(samples)["classification"]


def test_native_divides_by_the_detectors_number_and_each_images_factor():
    factors = torch.tensor([1.0, 10.0])
    torch.testing.assert_close(native(4.0, factors), torch.tensor(6 / 4 + 4 / 40))
    torch.testing.assert_close(native(0.0, factors), torch.tensor(6 + 4 / 10))  # of nothing as of one
    torch.testing.assert_close(native(0.5, factors, least=1e-9), torch.tensor(12 + 8 / 10))


def test_native_needs_a_detector_that_has_such_a_number():
    with pytest.raises(UsageError, match="NativeNormalizer: this detector gives no number of its own"):
        Criterion(Given(), normalizer=NativeNormalizer())(images_with([1.0], [1]))


def test_a_default_normalizer_is_not_chosen():
    criterion = Criterion("ghm", box_loss=None)
    criterion.set_default_normalizer(NativeNormalizer())  # ghm divides itself: this gives way
    assert criterion.spec["normalizer"] is None
    assert isinstance(criterion.normalizer, NativeNormalizer)
    with pytest.raises(UsageError, match="GHMLoss brings its own normalizer"):
        Criterion("ghm", box_loss=None, normalizer=NativeNormalizer())


def _native_on_rank(rank):
    reduce, counts = Reduce(), (3.0, 0.0)
    factors = torch.ones(4 if rank == 0 else 2)  # processes may have different numbers of layers
    samples = replace(images_with([1.0], [1]), context=StepContext(reduce))
    samples = replace(samples, native=NativeDivisor(torch.tensor(counts[rank]), factors))
    return NativeNormalizer()(samples).tolist()


@pytest.mark.ddp
def test_native_sums_one_number_over_processes(two_processes):
    assert two_processes(_native_on_rank) == [[1.5] * 4, [1.5] * 2]


def test_moving_average_moves_only_in_training():
    samples, criterion = images_with([1.0], [4]), Criterion(Given(), normalizer=EMANormalizer(0.5, 8.0))
    with torch.no_grad():
        torch.testing.assert_close(criterion(samples)["classification"], torch.tensor(1 / 8))
    for average in (6.0, 5.0, 4.5):
        torch.testing.assert_close(criterion(samples)["classification"], torch.tensor(1 / average))
    assert criterion.normalizer.positives == 4.5


def _share(rank, normalizer):
    held = [([6.0, 4.0], [3, 1]), ([0.9], [0])][rank]
    return Criterion(Given(), normalizer=normalizer)(images_with(*held))["classification"].detach()


@pytest.mark.ddp
@pytest.mark.parametrize("normalizer", ["image", "batch", "ema", "none"])
def test_mean_over_processes_is_the_value_of_one_process(two_processes, normalizer):
    whole = Criterion(Given(), normalizer=normalizer)(images_with([6.0, 4.0, 0.9], [3, 1, 0]))["classification"]
    torch.testing.assert_close(torch.stack(two_processes(_share, normalizer)).mean(), whole)


def test_arguments_out_of_range_are_named():
    with pytest.raises(UsageError, match=r"ema: momentum must be in \[0, 1\], not 1.5"):
        EMANormalizer(momentum=1.5)


def test_a_step_without_positives_counts_as_one_in_the_moving_average():
    criterion = Criterion(Given(), normalizer=EMANormalizer(0.5, 3.0))
    for average in (2.0, 1.5, 1.25):
        criterion(images_with([1.0], [0]))
        assert criterion.normalizer.positives == average
