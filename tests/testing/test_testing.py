"""Our own losses against the kit, and the kit against losses with one fault each."""

import copy

import pytest
import torch

from lit_dense.box_losses import BOX_LOSSES, BoxLoss
from lit_dense.core.class_counts import ClassCounts
from lit_dense.core.errors import UsageError
from lit_dense.functional import SigmoidTerms
from lit_dense.losses import LOSSES, DenseLoss, SigmoidLoss
from lit_dense.testing import check_box_loss, check_classification_loss
from tests.builders.kit import failure_of

DETACHED = {name: ["gradient"] for name in ("seesaw", "mal", "ap", "alrp", "rs")}
"""Losses with a detached factor, or with a gradient that is defined by ranks, and the check that they fail for it."""
SKIPPED = {"ciou": ["gradient"], "wiou": ["gradient"]}
"""Box losses with a detached factor."""
BOX_VARIANTS = [
    {"class_path": "diou", "init_args": {"inner": 0.8, "focaler": [0.0, 0.95], "alpha": 0.5, "shape": 1.0}},
    {"class_path": "siou", "init_args": {"inner": 1.2, "alpha": 3.0, "shape": -1.0}},
    {"class_path": "mpdiou", "init_args": {"shape": 2.0}},
]
VARIANTS = [
    {"class_path": "federated", "init_args": {"loss": "focal", "num_classes": 3}},
    {"class_path": "federated", "init_args": {"loss": "qfl"}},
    {"class_path": "federated", "init_args": {"loss": "ia_bce"}},
    {"class_path": "seesaw", "init_args": {"q": 0.0}},  # without its detached factor
    {"class_path": "bce", "init_args": {"pos_weight": [1, 2, 3, 4, 5], "label_smoothing": 0.1, "bootstrap": "hard"}},
    {"class_path": "focal", "init_args": {"pos_weight": [1, 2, 3, 4, 5]}},
    {"class_path": "softmax", "init_args": {"label_smoothing": 0.1, "bootstrap": "hard"}},
]


@pytest.mark.ddp
@pytest.mark.parametrize(
    "loss",
    [*sorted({*LOSSES.points} - {"alrp"}), pytest.param("alrp", marks=pytest.mark.slow), *VARIANTS],
    ids=str,
)
def test_check_classification_loss__own_losses_pass(loss, two_processes):
    skip = DETACHED.get(loss, []) if isinstance(loss, str) else []
    check_classification_loss(loss, skip=skip, two_processes=two_processes)


@pytest.mark.ddp
@pytest.mark.parametrize("loss", [*sorted(BOX_LOSSES.points), *BOX_VARIANTS], ids=str)
def test_check_box_loss__own_losses_pass(loss, two_processes):
    skip = SKIPPED.get(loss, []) if isinstance(loss, str) else []
    check_box_loss(loss, skip=skip, two_processes=two_processes)


class Hinge(DenseLoss):
    """Without a fault and without state: what those below differ from."""

    def forward(self, logits, labels, samples):
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32)).clamp(-1e5, 1e5)
        classes = torch.arange(logits.shape[1], device=logits.device)
        sign = torch.where(labels.unsqueeze(1) == classes, 1.0, -1.0)
        return torch.nn.functional.softplus(1 - sign * wide).sum(1)


class CountingHinge(Hinge):
    """Without a fault: it counts positives."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, logits, labels, samples):
        seen = self.seen + samples.reduce.sum(torch.ones_like(self.seen) * len(samples.positives))
        self.stage(seen=seen)
        return super().forward(logits, labels, samples) / (1 + 0.01 * seen)


class WrongSlope(SigmoidLoss):
    def sigmoid_terms(self, samples):
        def negative(x, labels):
            return torch.nn.functional.softplus(x), 0.9 * x.sigmoid()

        def positive(x, labels, targets):
            return torch.nn.functional.softplus(-x), -(-x).sigmoid()

        return SigmoidTerms(negative, positive)


class NaNAtInfinity(Hinge):
    def forward(self, logits, labels, samples):
        return super().forward(logits, labels, samples) + (logits - logits).sum(1)


class ChangesStateInForward(CountingHinge):
    def forward(self, logits, labels, samples):
        self.seen += len(samples.positives)
        return super().forward(logits, labels, samples)


class ForgetsOtherProcesses(Hinge):
    def forward(self, logits, labels, samples):
        positives = len(samples.positives)
        return super().forward(logits, labels, samples) / (1 + positives)


class ChangesLogits(Hinge):
    def forward(self, logits, labels, samples):
        return super().forward(logits.clamp_(-1, 1), labels, samples)


class NothingWithoutPositives(Hinge):
    def forward(self, logits, labels, samples):
        if len(samples.positives) == 0:
            return logits.new_zeros(len(labels))
        return super().forward(logits, labels, samples)


class LeavesTheOtherProcessAlone(CountingHinge):
    def forward(self, logits, labels, samples):
        if len(samples.positives) == 0:
            return 0 * logits.float().clamp(-1e5, 1e5).sum(1)
        return super().forward(logits, labels, samples)


class StaysInFloat32(Hinge):
    def forward(self, logits, labels, samples):
        return super().forward(logits.float(), labels, samples)


class ReadsANumber(Hinge):
    def forward(self, logits, labels, samples):
        return super().forward(logits, labels, samples) * (1 + 0 * logits.detach().isnan().sum().item())


class ReadsAMask(Hinge):
    def forward(self, logits, labels, samples):
        values = super().forward(logits, labels, samples)
        return values + 0 * labels[labels >= 0].sum()


class CountsIgnored(Hinge):
    def forward(self, logits, labels, samples):
        values = super().forward(logits, labels, samples)
        return values * (1 + 1e-3 * samples.reduce.sum(logits.clamp(-1e5, 1e5).sum().to(values.dtype)))


class StaysInHalf(Hinge):
    def forward(self, logits, labels, samples):
        return super().forward(logits, labels, samples).to(logits.dtype)


class ForgetsArguments(Hinge):
    def __init__(self):
        super().__init__()
        self.scale = 1.0

    def forward(self, logits, labels, samples):
        return super().forward(logits, labels, samples) * self.scale


class LooksAtPositions(Hinge):
    def forward(self, logits, labels, samples):
        place = torch.arange(len(labels), device=labels.device) % 2
        return super().forward(logits, labels, samples) * (1 + place)


class StateInAnAttribute(Hinge):
    calls = 0

    def forward(self, logits, labels, samples):
        self.calls += 1
        return super().forward(logits, labels, samples) * self.calls


class OneValue(Hinge):
    def forward(self, logits, labels, samples):
        return super().forward(logits, labels, samples).mean()


class Signed(BoxLoss):
    def forward(self, predicted, target, samples):
        return target - predicted


class RootWithoutFloor(BoxLoss):
    def forward(self, predicted, target, samples):
        return (predicted - target).square().sum(1).sqrt()


QUICK = ["compiled", "two_processes"]
ALL_BUT_PROCESSES = [
    *["shape", "gradient", "extreme_logits", "half_precision", "autocast", "hard_batches", "ignored_anchors"],
    *["order_of_anchors", "inputs_untouched", "forward_keeps_state", "evaluation_keeps_state", "checkpoint"],
    *["copies", "spec", "no_host_sync", "compiled"],
]


def failure(loss, two_processes=None, check=check_classification_loss, skip=QUICK):
    return failure_of(check, loss, skip=skip, two_processes=two_processes)


@pytest.mark.ddp
def test_check_classification_loss__a_correct_loss_passes(two_processes):
    check_classification_loss(CountingHinge(), two_processes=two_processes)


@pytest.mark.parametrize(
    ("loss", "checks"),
    [
        pytest.param(WrongSlope(), {"gradient"}, marks=pytest.mark.fast_paths),
        (NaNAtInfinity(), {"extreme_logits"}),
        (ChangesStateInForward(), {"forward_keeps_state", "evaluation_keeps_state"}),
        (ChangesLogits(), {"inputs_untouched"}),
        (NothingWithoutPositives(), {"hard_batches"}),
        (ReadsANumber(), {"no_host_sync"}),
        (ReadsAMask(), {"no_host_sync"}),
        (CountsIgnored(), {"ignored_anchors"}),
        (StaysInHalf(), {"half_precision"}),
        (StaysInFloat32(), {"gradient"}),
        (LooksAtPositions(), {"order_of_anchors"}),
        (StateInAnAttribute(), {"evaluation_keeps_state", "checkpoint"}),
        (OneValue(), {"shape"}),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, DenseLoss) else "",
)
def test_check_classification_loss__finds_and_names_one_fault(loss, checks):
    found = failure(loss)
    assert checks <= found.failed.keys()  # a fault may show in more than one way
    for name in checks:
        assert f"FAILED {name}\n" in str(found)


@pytest.mark.ddp
@pytest.mark.parametrize("loss", [ForgetsOtherProcesses(), NothingWithoutPositives()], ids=lambda v: type(v).__name__)
def test_check_classification_loss__finds_what_processes_do_not_share(loss, two_processes):
    found = failure(loss, two_processes, skip=ALL_BUT_PROCESSES)
    assert "two_processes" in found.failed
    assert "samples.reduce.sum" in str(found)


@pytest.mark.parametrize(
    ("loss", "checks"),
    [(Signed(), {"least_at_target"}), (RootWithoutFloor(), {"extreme_boxes"})],
    ids=["Signed", "RootWithoutFloor"],
)
def test_check_box_loss__finds_faults(loss, checks):
    assert failure(loss, check=check_box_loss, skip=["two_processes"]).failed.keys() == checks


def test_check_classification_loss__finds_a_setting_that_is_not_in_the_spec():
    loss = ForgetsArguments()
    loss.scale = 2.0
    assert failure(loss).failed.keys() == {"spec", "checkpoint"}


def test_check_classification_loss__reports_a_class_that_cannot_be_imported():
    class Local(Hinge):
        pass

    assert {"spec", "checkpoint", "copies"} <= failure(Local()).failed.keys()


@pytest.mark.fast_paths
def test_check_classification_loss__reports_what_was_expected_and_seen_and_what_to_do():
    found = failure(WrongSlope())
    lines = str(found).splitlines()
    assert lines[0] == "The classification loss WrongSlope(): 1 of 15 checks failed."
    assert "FAILED gradient" in lines
    assert any(line.startswith("  expected: the gradient that finite differences") for line in lines)
    assert any("backward gives" in line and line.startswith("  seen") for line in lines)
    assert any("slopes of SigmoidTerms" in line and line.startswith("  to do") for line in lines)
    (passed,) = (line for line in lines if line.startswith("passed: "))
    assert "extreme_logits" in passed
    assert "gradient" not in passed
    assert "skipped: compiled (requested by the caller)" in lines
    assert set(found.skipped) == {"compiled", "two_processes"}


def test_check_classification_loss__shows_the_line_that_reads_a_number():
    assert ".isnan().sum().item()" in str(failure(ReadsANumber()))


def test_check_classification_loss__an_unknown_check_is_refused():
    with pytest.raises(UsageError, match=r"Unknown check 'gradcheck'\. The checks are shape, gradient"):
        check_classification_loss("focal", skip=["gradcheck"])


def test_check_classification_loss__does_not_change_the_loss():
    loss = LOSSES.build("eql_v2")
    before = copy.deepcopy(loss)
    check_classification_loss(loss, skip=["two_processes", "compiled"])
    assert loss.state_dict().keys() == before.state_dict().keys()
    assert len(loss.positive_gradients) == 0
    assert "_staged" not in loss.__dict__


def test_check_classification_loss__class_counts_decide_the_number_of_classes():
    counts = ClassCounts(torch.tensor([9, 1]), torch.tensor([5, 1]), num_images=10)
    loss = {"class_path": "eql", "init_args": {"frequencies": [0.5, 0.001]}}
    check_classification_loss(loss, class_counts=counts, skip=["two_processes", "compiled"])
    with pytest.raises(UsageError, match="frequencies has 2 numbers, but the head has 5 classes"):
        check_classification_loss(loss)


@pytest.mark.ddp
@pytest.mark.slow
def test_check_classification_loss__reports_a_process_that_waits_for_ever():
    found = failure(LeavesTheOtherProcessAlone(), skip=ALL_BUT_PROCESSES)
    assert found.failed.keys() == {"two_processes"}
    assert "equally often on every process" in str(found)
