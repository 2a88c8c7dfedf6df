"""Our own weighters against the kit, and the kit against weighters with one fault each."""

import pytest
import torch
from torch import nn

from lit_dense.core.class_counts import ClassCounts
from lit_dense.core.errors import UsageError
from lit_dense.core.samples import IGNORED
from lit_dense.testing import check_weighter
from lit_dense.testing.batches import in_order, make_batch, tensors_of
from lit_dense.weighters import WEIGHTERS, Weighter, Weights
from tests.builders.kit import failure_of

VARIANTS = [
    {"class_path": "pisa", "init_args": {"negatives": True}},
    {"class_path": "swn", "init_args": {"classification": "anchor", "hidden": 16}},
    {"class_path": "swn", "init_args": {"detach_features": False, "hidden": 16}},
    {"class_path": "cleanliness", "init_args": {"form": "paper"}},
]


@pytest.mark.ddp
@pytest.mark.parametrize("weighter", [*sorted(WEIGHTERS.points), *VARIANTS], ids=str)
def test_check_weighter__own_weighters_pass(weighter, two_processes):
    check_weighter(weighter, two_processes=two_processes)


class Confident(Weighter):
    """Without a fault, with state and a parameter: what those below differ from."""

    def __init__(self, **schedule):
        super().__init__(**schedule)
        self.slope = nn.Parameter(torch.zeros(()))
        self.register_buffer("mean", torch.ones(()))

    def forward(self, samples, values):
        sums = samples.reduce.sum(torch.stack([samples.pos_scores.sum(), torch.tensor(float(len(samples.positives)))]))
        mean = 0.5 * self.mean + 0.5 * sums[0] / sums[1].clamp(min=1)
        self.stage(mean=mean)
        own = torch.exp(self.slope * (samples.pos_scores - mean))
        weights = torch.ones_like(values.classification).index_put((samples.positives,), own)
        share = values.box_scales[samples.pos_image_idxs]
        return Weights(weights, own, {"decay": (self.slope**2 * share).sum()})


class Of(Weighter):
    """Weights of anchors that a function of samples and values gives."""

    def weights(self, samples, values):
        raise NotImplementedError

    def forward(self, samples, values):
        return Weights(classification=self.weights(samples, values))


class NaNWithoutPositives(Of):
    def weights(self, samples, values):
        return torch.ones_like(values.classification) * (1 - samples.pos_scores.mean()).clamp(min=0)


class MeanOfOwnProcess(Of):
    def weights(self, samples, values):
        costs = values.classification.detach()
        return costs / (costs.sum() / samples.valid.sum().clamp(min=1)).clamp(min=1e-6)


class AlsoInEvaluation(Of):
    def weights(self, samples, values):
        return torch.full_like(values.classification, 0.5)

    def scheduled(self, samples, values):
        return self(samples, values)


class ChangesValues(Of):
    def weights(self, samples, values):
        with torch.no_grad():
            values.classification.clamp_(max=1.0)
        return torch.ones_like(values.classification)


class Negative(Of):
    def weights(self, samples, values):
        return 1 - 2 * samples.best_scores


class OnePerPositive(Of):
    def weights(self, samples, values):
        return torch.ones_like(samples.pos_scores)


class StaysInDouble(Of):
    def weights(self, samples, values):
        return values.classification.detach().double().clamp(max=1.0)


class BlowsUp(Of):
    def weights(self, samples, values):
        return 1 / (1 - samples.best_scores)


class CountsIgnored(Of):
    def weights(self, samples, values):
        return 1 + samples.scatter_to_anchors(samples.pos_scores) * samples.reduce.sum(samples.best_scores.sum())


class LooksAtPositions(Of):
    def weights(self, samples, values):
        return 1.0 + torch.arange(len(samples.labels)) % 2 * (samples.labels != IGNORED)


class LooksAtTheFirstImage(Of):
    def weights(self, samples, values):
        return torch.where(samples.image_idxs == 0, 2.0, 1.0)


class ParameterOfPositives(Confident):
    def forward(self, samples, values):
        if len(samples.positives) == 0:
            return Weights()
        return super().forward(samples, values)


class CountsAtOnce(Of):
    def weights(self, samples, values):
        return torch.full_like(values.classification, 0.5)

    def _share_at(self, step):
        return 1.0


class RoundsWithThePredictions(Of):
    def weights(self, samples, values):
        return (samples.logits.detach().amax(1).sigmoid() * 0.999).float()


class StateInAnAttribute(Of):
    calls = 0

    def weights(self, samples, values):
        self.calls += 1
        return torch.full_like(values.classification, float(self.calls))


class ChangesStateInForward(Of):
    def __init__(self, **schedule):
        super().__init__(**schedule)
        self.register_buffer("calls", torch.zeros(()))

    def weights(self, samples, values):
        self.calls += 1
        return torch.ones_like(values.classification)


class TargetsOver1(Weighter):
    exclusive = frozenset({"soft_targets"})

    def soft_targets(self, samples):
        return 1.5 * samples.pos_scores + 0.5

    def forward(self, samples, values):
        return Weights()


class NegativeWithoutSchedule(Negative):
    def __init__(self):
        super().__init__()


class SharedTooOften(Confident):
    def param_groups(self):
        return [{"params": [self.slope]}, {"params": [self.slope]}]


SLOW = {"two_processes", "hard_batches", "extreme_logits"}


def failure(weighter, two_processes=None, skip=frozenset()):
    return failure_of(check_weighter, weighter, skip=skip, two_processes=two_processes)


ALL = [
    *["shape", "not_negative", "extreme_logits", "half_precision", "autocast", "hard_batches", "parameters"],
    *["ignored_anchors", "order_of_anchors", "order_of_images", "inputs_untouched", "off_in_evaluation"],
    *["forward_keeps_state", "evaluation_keeps_state", "checkpoint", "copies", "spec", "schedule", "two_processes"],
]


@pytest.mark.ddp
def test_check_weighter__a_correct_weighter_passes(two_processes):
    check_weighter(Confident(), two_processes=two_processes)


@pytest.mark.parametrize(
    ("weighter", "checks"),
    [
        (NaNWithoutPositives(), {"hard_batches"}),
        (AlsoInEvaluation(), {"off_in_evaluation", "schedule"}),
        (ChangesValues(), {"inputs_untouched"}),
        (Negative(), {"not_negative"}),
        (OnePerPositive(), {"shape"}),
        (StaysInDouble(), {"shape"}),
        (BlowsUp(), {"extreme_logits"}),
        (CountsIgnored(), {"ignored_anchors"}),
        (LooksAtPositions(), {"order_of_anchors"}),
        (LooksAtTheFirstImage(), {"order_of_images"}),
        (ParameterOfPositives(), {"parameters"}),
        (SharedTooOften(), {"parameters"}),
        (CountsAtOnce(), {"schedule"}),
        (RoundsWithThePredictions(), {"half_precision"}),
        (StateInAnAttribute(), {"checkpoint"}),
        (ChangesStateInForward(), {"forward_keeps_state"}),
        (TargetsOver1(), {"not_negative"}),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, Weighter) else "",
)
def test_check_weighter__finds_and_names_one_fault(weighter, checks):
    found = failure(weighter, skip=SLOW - checks)
    assert checks <= found.failed.keys()  # a fault may show in more than one way
    for name in checks:
        assert f"FAILED {name}\n" in str(found)


@pytest.mark.ddp
@pytest.mark.parametrize("weighter", [MeanOfOwnProcess(), LooksAtTheFirstImage()], ids=lambda v: type(v).__name__)
def test_check_weighter__finds_what_processes_do_not_share(weighter, two_processes):
    found = failure(weighter, two_processes, skip=set(ALL) - {"two_processes"})
    assert found.failed.keys() == {"two_processes"}
    assert "focal and l1: in step 1 the loss term classification of one process" in str(found)
    assert "samples.reduce.sum" in str(found)


def test_check_weighter__skips_the_schedule_of_a_weighter_without_one():
    found = failure(NegativeWithoutSchedule(), skip=set(ALL) - {"shape", "not_negative", "schedule"})
    assert found.passed == ["shape"]
    assert found.failed.keys() == {"not_negative"}
    assert found.skipped["schedule"] == "the constructor has no argument warmup_steps"


def test_check_weighter__reports_what_is_checked_and_what_was_seen():
    lines = str(failure(CountsAtOnce(warmup_steps=1), skip=set(ALL) - {"schedule"})).splitlines()
    assert lines[0] == "The weighter CountsAtOnce(warmup_steps=1, fade_steps=0): 1 of 1 checks failed."
    assert lines[3].startswith(
        "  expected: the terms of the losses without the weighter, and extra terms of 0, in step 0 of 2"
    )
    assert lines[4].startswith("  seen    : classification: 1 of 1 numbers differ")
    assert "do not override scheduled and scheduled_soft_targets" in lines[5]


def test_check_weighter__an_unknown_check_is_refused():
    with pytest.raises(UsageError, match=r"Unknown check 'gradient'\. The checks are shape, not_negative"):
        check_weighter("ohem", skip=["gradient"])


def test_check_weighter__does_not_change_the_weighter():
    weighter = Confident()
    check_weighter(weighter, skip=set(ALL) - {"shape", "copies", "parameters"})
    assert weighter.slope == 0
    assert weighter.mean == 1
    assert "_staged" not in weighter.__dict__


def test_check_weighter__class_counts_decide_the_number_of_classes():
    counts = ClassCounts(torch.tensor([9, 1]), torch.tensor([5, 1]), num_images=10)
    weighter = {"class_path": "class_balanced", "init_args": {"instance_counts": [9, 1]}}
    check_weighter(weighter, class_counts=counts, skip=["two_processes", "extreme_logits"])
    with pytest.raises(UsageError, match="instance_counts has 2 numbers, but the head has 5 classes"):
        check_weighter(weighter)


def test_in_order__images_in_another_order_are_the_same_images():
    samples = make_batch(num_classes=3)
    order = [2, 3, 1, 0]
    other, rows = in_order(samples, order)
    assert other.pos_per_image.tolist() == samples.pos_per_image[order].tolist()
    for name in ("labels", "logits", "anchors"):
        assert torch.equal(getattr(other, name), getattr(samples, name)[rows])
    weights = (s.scatter_to_anchors(s.target_fields["weight"][s.pos_matched_idxs]) for s in (samples, other))
    assert torch.equal(next(weights)[rows], next(weights))
    again, _ = in_order(other, [order.index(image) for image in range(4)])
    for name, tensor in tensors_of(samples).items():
        assert torch.equal(tensors_of(again)[name], tensor), name
