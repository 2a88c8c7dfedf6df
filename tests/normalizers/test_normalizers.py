from dataclasses import replace

import pytest
import torch

from lit_dense.core.distributed import Reduce
from lit_dense.core.errors import UsageError
from lit_dense.core.native_divisor import NativeDivisor
from lit_dense.core.step_context import StepContext
from lit_dense.criterion import Criterion
from lit_dense.losses import DenseLoss
from lit_dense.normalizers import EMANormalizer
from lit_dense.normalizers.native_normalizer import NativeNormalizer
from tests.builders.samples import images_with


class Given(DenseLoss):
    """The logit itself is the loss."""

    def forward(self, logits, labels, samples):
        return logits[:, 0]


@pytest.mark.parametrize(
    ("normalizer", "expected"),
    [("image", 2.3), ("batch", 2.725), ("ema", 10.9 / (0.9 * 100 + 0.1 * 4)), ("none", 10.9)],
)
def test_normalizers__worked_values(normalizer, expected):
    samples = images_with([6.0, 4.0, 0.9], [3, 1, 0])
    value = Criterion(Given(), normalizer=normalizer)(samples)["classification"]
    torch.testing.assert_close(value, torch.tensor(expected))


def native(count, factors, least=1.0):
    """Two images of two anchors whose detector divides by a number of its own."""
    samples = replace(images_with([6.0, 4.0], [3, 1]), native=NativeDivisor(torch.tensor(count), factors, least))
    return Criterion(Given(), box_loss=None, normalizer=NativeNormalizer())(samples)["classification"]


def test_native_normalizer__divides_by_the_detectors_number_and_each_images_factor():
    factors = torch.tensor([1.0, 10.0])
    torch.testing.assert_close(native(4.0, factors), torch.tensor(6 / 4 + 4 / 40))
    torch.testing.assert_close(native(0.0, factors), torch.tensor(6 + 4 / 10))  # of nothing as of one
    torch.testing.assert_close(native(0.5, factors, least=1e-9), torch.tensor(12 + 8 / 10))


def test_native_normalizer__needs_a_detector_that_has_such_a_number():
    with pytest.raises(UsageError, match="NativeNormalizer: this detector does not define its own divisor"):
        Criterion(Given(), normalizer=NativeNormalizer())(images_with([1.0], [1]))


def test_set_default_normalizer__gives_way_to_a_loss_that_divides_itself():
    criterion = Criterion("ghm", box_loss=None)
    criterion.set_default_normalizer(NativeNormalizer())  # ghm divides itself: this gives way
    assert criterion.spec["normalizer"] is None
    assert isinstance(criterion.normalizer, NativeNormalizer)
    with pytest.raises(
        UsageError, match=r"GHMLoss brings its own normalizer .* NativeNormalizer has nothing to divide"
    ):
        Criterion("ghm", box_loss=None, normalizer=NativeNormalizer())


def _native_on_rank(rank):
    reduce, counts = Reduce(), (3.0, 0.0)
    factors = torch.ones(4 if rank == 0 else 2)  # processes may have different numbers of layers
    samples = replace(images_with([1.0], [1]), context=StepContext(reduce))
    samples = replace(samples, native=NativeDivisor(torch.tensor(counts[rank]), factors))
    return NativeNormalizer()(samples).tolist()


@pytest.mark.ddp
def test_native_normalizer__sums_one_number_over_processes(two_processes):
    assert two_processes(_native_on_rank) == [[1.5] * 4, [1.5] * 2]


def _soft_share(rank):
    quality = torch.tensor([[0.9, 0.5, 0.25], [0.75]][rank])
    samples = images_with([[6.0], [4.0]][rank], [[3], [1]][rank]).with_quality(quality)
    return Criterion(Soft(), normalizer="soft_targets")(samples)["classification"].detach()


class Soft(Given):
    accepts_soft_targets = True


@pytest.mark.ddp
def test_soft_targets_normalizer__sums_targets_over_processes(two_processes):
    whole = images_with([6.0, 4.0], [3, 1]).with_quality(torch.tensor([0.9, 0.5, 0.25, 0.75]))
    value = Criterion(Soft(), normalizer="soft_targets")(whole)["classification"]
    torch.testing.assert_close(value, torch.tensor(10 / 2.4))
    torch.testing.assert_close(torch.stack(two_processes(_soft_share)).mean(), value)
    least = images_with([6.0], [1]).with_quality(torch.tensor([0.2]))
    torch.testing.assert_close(Criterion(Soft(), normalizer="soft_targets")(least)["classification"], torch.tensor(6.0))


def test_ema_normalizer__moves_only_in_training():
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
@pytest.mark.parametrize("normalizer", ["image", "batch", "ema", "none", "soft_targets"])
def test_normalizers__mean_over_processes_is_the_value_of_one_process(two_processes, normalizer):
    whole = Criterion(Given(), normalizer=normalizer)(images_with([6.0, 4.0, 0.9], [3, 1, 0]))["classification"]
    torch.testing.assert_close(torch.stack(two_processes(_share, normalizer)).mean(), whole)


def test_ema_normalizer__arguments_out_of_range_are_named():
    with pytest.raises(UsageError, match=r"ema: momentum must be in \[0, 1\], not 1.5"):
        EMANormalizer(momentum=1.5)


def test_ema_normalizer__a_step_without_positives_counts_as_one():
    criterion = Criterion(Given(), normalizer=EMANormalizer(0.5, 3.0))
    for average in (2.0, 1.5, 1.25):
        criterion(images_with([1.0], [0]))
        assert criterion.normalizer.positives == average
