from dataclasses import replace

import pytest
import torch

from lit_dense.box_losses import BOX_LOSSES, GIoULoss, L1Loss
from lit_dense.core.errors import UsageError
from lit_dense.core.samples import IGNORED
from lit_dense.criterion import Criterion
from lit_dense.detectors import patch, set_box_outputs
from lit_dense.losses import LOSSES, DenseLoss, FocalLoss
from lit_dense.normalizers import NORMALIZERS
from lit_dense.weighters import Weighter, Weights
from tests.builders.detectors import COUNTS, NUM_CLASSES, gradients, random_batch, small_retinanet
from tests.builders.samples import samples_of


class Halve(Weighter):
    def forward(self, samples, values):
        return Weights(torch.full_like(values.classification, 0.5), torch.full_like(values.box, 0.25))


class AddTerm(Weighter):
    def __init__(self, name="extra"):
        super().__init__()
        self.name = name

    def forward(self, samples, values):
        return Weights(extra={self.name: values.box.sum() * 0 + 3.0})


class SoftTargets(Weighter):
    exclusive = frozenset({"soft_targets"})

    def soft_targets(self, samples):
        return samples.pos_ious

    def forward(self, samples, values):
        return Weights()


class ScaledBySoftTarget(FocalLoss):
    accepts_soft_targets = True

    def forward(self, logits, labels, samples):
        scale = torch.ones(len(labels)).index_put((samples.positives,), samples.soft_targets)
        return super().forward(logits, labels, samples) * scale


class OwnNormalizer(FocalLoss):
    exclusive = frozenset({"normalizer"})


class Counter(DenseLoss):
    """Counts the steps in a buffer and multiplies the loss by the count."""

    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, logits, labels, samples):
        count = self.count + 1
        self.stage(count=count)
        return logits.sum(1) * count


def test_criterion__weights_multiply():
    samples = samples_of()
    plain, weighted = Criterion()(samples), Criterion(weighters=[Halve(), Halve()])(samples)
    torch.testing.assert_close(weighted["classification"], plain["classification"] / 4)
    torch.testing.assert_close(weighted["bbox_regression"], plain["bbox_regression"] / 16)


def test_criterion__terms_have_weights():
    samples = samples_of()
    plain, weighted = Criterion()(samples), Criterion(loss_weight=3.8, box_loss_weight=10)(samples)
    torch.testing.assert_close(weighted["classification"], 3.8 * plain["classification"])
    torch.testing.assert_close(weighted["bbox_regression"], 10 * plain["bbox_regression"])
    with pytest.raises(UsageError, match="box_loss_weight must be at least 0, not -1"):
        Criterion(box_loss_weight=-1)


def test_criterion__class_counts_are_asked_for():
    with pytest.raises(UsageError, match=r"'eql' needs to know how often.*argument frequencies, a number for each"):
        patch(small_retinanet(), loss="eql")
    with pytest.raises(UsageError, match="frequencies has 3 numbers, but the head has 4 classes"):
        patch(small_retinanet(), loss={"class_path": "eql", "init_args": {"frequencies": [1, 1, 1]}})
    with pytest.raises(UsageError, match=r"class_counts has 4 classes, but the head has 3\.$"):
        patch(small_retinanet(3), loss="eql", class_counts=COUNTS)
    told = patch(small_retinanet(6), loss="eql", class_counts=COUNTS).loss.frequencies.values
    torch.testing.assert_close(told, torch.tensor([0.4, 0.08, 0.001, 0, 0, 0]))


def test_criterion__a_checkpoint_knows_the_class_counts():
    told = patch(small_retinanet(), loss="federated", class_counts=COUNTS)
    criterion = Criterion("federated")
    criterion.prepare(NUM_CLASSES)
    criterion.load_state_dict(told.state_dict())
    criterion.check_ready()
    assert criterion.loss.image_counts.values.tolist() == [400, 80, 1, 0]
    criterion.step = 1
    with pytest.raises(UsageError, match="state of 4 classes, but the head has 5"):
        criterion.prepare(5)


def test_criterion__extra_terms_are_added_under_their_names():
    assert Criterion(weighters=[AddTerm()])(samples_of())["extra"] == 3.0
    with pytest.raises(UsageError, match="AddTerm adds a loss term 'classification' that exists already"):
        Criterion(weighters=[AddTerm("classification")])(samples_of())


def test_criterion__soft_targets_reach_the_loss():
    samples = samples_of()
    soft = Criterion(ScaledBySoftTarget(), weighters=[SoftTargets()])(samples)["classification"]
    assert 0 < soft < Criterion()(samples)["classification"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss": ScaledBySoftTarget(), "weighters": [SoftTargets(), SoftTargets()]}, "both decide the soft targets"),
        (
            {"loss": "efl", "weighters": [SoftTargets()]},
            "soft targets, which the loss EqualizedFocalLoss does not use",
        ),
        (
            {"loss": OwnNormalizer(), "box_loss": "ghm_r", "normalizer": "batch"},
            "OwnNormalizer brings its own normalizer for the classification loss and GHMRLoss brings its own "
            "normalizer for the box loss, so BatchNormalizer has nothing to divide",
        ),
        ({"loss": OwnNormalizer(), "box_loss": None, "normalizer": "batch"}, "BatchNormalizer has nothing to divide"),
    ],
)
def test_criterion__parts_that_decide_the_same_thing_are_named(arguments, message):
    with pytest.raises(UsageError, match=message):
        Criterion(**arguments)


def test_criterion__a_loss_with_its_own_normalizer_is_summed():
    samples = samples_of()
    own = Criterion(OwnNormalizer())(samples)["classification"]
    torch.testing.assert_close(own, Criterion(normalizer="none")(samples)["classification"])
    assert Criterion(**Criterion(OwnNormalizer()).spec).loss.exclusive == {"normalizer"}


@pytest.mark.parametrize("normalizer", ["batch", "none"])
def test_criterion__a_normalizer_divides_the_term_that_is_not_normalised(normalizer):
    samples = samples_of()
    plain, given = Criterion(normalizer=normalizer)(samples), Criterion(OwnNormalizer(), normalizer=normalizer)
    terms = given(samples)
    torch.testing.assert_close(terms["bbox_regression"], plain["bbox_regression"])
    torch.testing.assert_close(terms["classification"], Criterion(OwnNormalizer())(samples)["classification"])
    assert Criterion(**given.spec).normalizer.spec == given.normalizer.spec
    boxes = Criterion(box_loss="ghm_r", normalizer=normalizer)(samples)
    torch.testing.assert_close(boxes["classification"], plain["classification"])


def test_criterion__state_is_committed_once_per_training_step_and_never_in_evaluation():
    samples, criterion = samples_of(), Criterion(Counter())
    criterion.train()
    with torch.no_grad():
        first = criterion(samples)["classification"]
        torch.testing.assert_close(criterion(samples)["classification"], first)
    assert (criterion.loss.count, criterion.step) == (0, 0)
    torch.testing.assert_close(criterion(samples)["classification"], first)
    assert (criterion.loss.count, criterion.step) == (1, 1)
    torch.testing.assert_close(criterion(samples)["classification"], 2 * first)
    restored = Criterion(Counter())
    restored.load_state_dict(criterion.state_dict())
    assert (restored.loss.count, restored.step) == (2, 2)


def test_spec__rebuilds_the_criterion():
    criterion = Criterion(FocalLoss(gamma=1.5), "giou", [AddTerm("more")], "ema", "max_iou")
    twin = Criterion(**criterion.spec)
    assert twin.spec == criterion.spec
    assert twin.loss.gamma == 1.5
    assert isinstance(twin.box_loss, GIoULoss)
    assert twin.weighters[0].name == "more"


@pytest.mark.parametrize(
    ("loss", "box_loss", "normalizer"),
    [
        *((loss, "l1", None) for loss in LOSSES.points),
        *(("focal", box_loss, None) for box_loss in BOX_LOSSES.points),
        *(("focal", "l1", normalizer) for normalizer in NORMALIZERS.points),
    ],
)
@pytest.mark.parametrize("case", ["no positives", "all ignored", "one positive"])
def test_criterion__hard_batches_are_finite_and_connected(loss, box_loss, normalizer, case):
    model = small_retinanet(NUM_CLASSES + Criterion(loss).loss.extra_logits)
    set_box_outputs(model, box_loss)
    criterion = patch(model, loss, box_loss, normalizer=normalizer, class_counts=COUNTS)
    images, targets = random_batch((0, 0) if case == "no positives" else (1,))
    if case == "all ignored":
        forward = criterion.forward
        criterion.forward = lambda s: forward(replace(s, matched_idxs=torch.full_like(s.matched_idxs, IGNORED)))
    terms = model(images, targets)
    sum(terms.values()).backward()
    assert all(t.isfinite() for t in terms.values())
    assert all(p.grad is not None for p in model.parameters())
    assert gradients(model).isfinite().all()
    if case == "all ignored":
        assert sum(terms.values()) == 0


def test_criterion__losses_are_computed_in_float32_under_autocast():
    model, reference = small_retinanet(), small_retinanet()
    patch(model)
    patch(reference)
    batch = random_batch()
    with torch.autocast("cpu", torch.bfloat16):
        terms = model(*batch)
    assert all(t.dtype == torch.float32 for t in terms.values())
    expected = reference(*batch)
    torch.testing.assert_close(terms["classification"], expected["classification"], rtol=0.05, atol=0)


def test_criterion__an_assigner_takes_the_place_of_the_matcher():
    batch = random_batch()
    same, strict = small_retinanet(), small_retinanet()
    patch(same, assigner="max_iou")
    patch(
        strict,
        assigner={"class_path": "max_iou", "init_args": {"positive": 0.95, "allow_low_quality": False}},
        box_loss=L1Loss(),
    )
    torch.testing.assert_close(same(*batch), small_retinanet()(*batch))
    assert strict(*batch)["bbox_regression"] == 0
