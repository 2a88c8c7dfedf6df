"""What weighters do to the terms of a batch."""

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from lit_dense.core.distributed import Reduce
from lit_dense.core.errors import UsageError
from lit_dense.core.step_context import StepContext
from lit_dense.criterion import Criterion
from lit_dense.detectors import patch
from lit_dense.losses import FocalLoss
from lit_dense.weighters import (
    WEIGHTERS,
    CleanlinessWeighter,
    HarmonicWeighter,
    IoUBalancedWeighter,
    LossValues,
    OHEMWeighter,
    PISAWeighter,
    SoftBackgroundWeighter,
    SWNWeighter,
    Weighter,
    Weights,
)
from tests.builders.detectors import COUNTS, random_batch, small_retinanet
from tests.builders.samples import samples_of

SUM_PRESERVING = [
    PISAWeighter(),
    PISAWeighter(negatives=True),
    CleanlinessWeighter(candidates=0),
    IoUBalancedWeighter(),
]


def terms(*weighters, samples=None, **parts):
    samples = samples_of() if samples is None else samples
    return Criterion(weighters=weighters, class_counts=COUNTS, **parts)(samples)


@pytest.mark.parametrize("normalizer", ["image", "batch"])
@pytest.mark.parametrize("weighter", SUM_PRESERVING, ids=lambda w: str(w.spec["init_args"]))
def test_weighters__sums_are_kept_in_the_units_of_the_normalizer(weighter, normalizer):
    samples = samples_of((2, 3, 0, 6))
    weighted = terms(weighter, samples=samples, normalizer=normalizer)
    if "soft_targets" in weighter.exclusive:
        samples = samples.with_soft_targets(weighter.soft_targets(samples))
    plain = terms(samples=samples, normalizer=normalizer)
    for name in ("classification", "bbox_regression"):
        torch.testing.assert_close(weighted[name], plain[name])


def test_pisa__a_better_box_never_counts_less_within_its_object():
    samples, weighter = samples_of((2, 3, 6)), PISAWeighter(carl=0)
    seen = []
    weighter.register_forward_hook(lambda module, args, answer: seen.append(answer.classification))
    terms(weighter, samples=samples)
    weights = seen[0][samples.positives]
    same = samples.pos_matched_idxs[:, None] == samples.pos_matched_idxs
    better = samples.pos_ious[:, None] > samples.pos_ious
    assert (weights[:, None] >= weights)[same & better].all()
    assert weights.std() > 0


def test_pisa__leaves_background_alone_by_default():
    samples = samples_of((2, 3, 6))

    def background(**arguments):
        answers = []
        weighter = PISAWeighter(**arguments)
        weighter.register_forward_hook(lambda module, args, answer: answers.append(answer.classification))
        terms(weighter, samples=samples)
        return answers[0][samples.labels == -1]

    assert (background() == 1).all()
    assert background(negatives=True, score_thresh=0.0).std() > 0


def test_pisa__carl_of_each_box_loss():
    for box_loss in ("l1", "giou"):
        found = terms(PISAWeighter(), samples=samples_of((2, 3)), box_loss=box_loss)
        assert 0.5 < found["carl"] / found["bbox_regression"] < 2
    assert "carl" not in terms(PISAWeighter(carl=0))


def test_ohem__of_everything_changes_nothing():
    torch.testing.assert_close(terms(OHEMWeighter(ratio=float("inf"))), terms())
    assert terms(OHEMWeighter())["classification"] < terms()["classification"]


def test_swn__starts_as_no_weighting():
    plain = terms()
    for classification in ("mean", "anchor"):
        found = terms(SWNWeighter(classification=classification))
        torch.testing.assert_close(found["classification"], plain["classification"], rtol=1e-4, atol=0)
        assert abs(found["swn_classification"]) < 1e-4


def test_swn__lets_gradients_through_features_if_asked():
    def box_gradient(**arguments):
        weighter = SWNWeighter(**arguments)
        for parameter in weighter.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        samples = samples_of((3, 2))
        loss = terms(weighter, samples=samples)["classification"]
        (gradient,) = torch.autograd.grad(loss, samples.deltas, allow_unused=True)
        return 0 if gradient is None else gradient.abs().sum()

    torch.manual_seed(0)
    assert box_gradient() == 0
    assert box_gradient(classification="anchor", detach_features=False) > 0


def test_class_balanced__is_focal_times_the_weight_of_the_class():
    samples = samples_of((4, 2))
    beta_0 = terms({"class_path": "class_balanced", "init_args": {"beta": 0.0}}, samples=samples)
    torch.testing.assert_close(beta_0, terms(samples=samples))
    given = {"class_path": "class_balanced", "init_args": {"beta": 0.9, "instance_counts": [1, 1000, 1000, 1000]}}
    rare = terms(given, samples=samples)["classification"]
    assert rare != terms(samples=samples)["classification"]
    with pytest.raises(UsageError, match="'class_balanced' needs to know how often each class occurs"):
        patch(small_retinanet(), weighters=["class_balanced"])


def test_target_weights__are_those_of_the_data():
    model = small_retinanet()
    patch(model, weighters=["target_weights"])
    images, targets = random_batch((2, 3))
    with pytest.raises(
        UsageError, match=r"no field 'weight' with one number for each box in every image \(fields: none\)"
    ):
        model(images, targets)
    stock = model(images, [t | {"weight": torch.ones(len(t["boxes"]))} for t in targets])
    torch.testing.assert_close(stock, small_retinanet()(images, targets))
    doubled = model(images, [t | {"weight": 2 * torch.ones(len(t["boxes"]))} for t in targets])
    torch.testing.assert_close(doubled["bbox_regression"], 2 * stock["bbox_regression"])
    none = model(images, [t | {"weight": torch.zeros(len(t["boxes"]))} for t in targets])
    assert none["bbox_regression"] == 0


def test_cleanliness__decides_assignment_and_targets():
    model = small_retinanet()
    criterion = patch(model, weighters=["cleanliness"])
    seen = []
    criterion.loss.register_forward_hook(lambda module, args, answer: seen.append(args[2]))
    model(*random_batch((2, 3)))
    assert not (seen[0].labels == -2).any()
    assert 30 <= len(seen[0].positives) <= 150
    assert seen[0].soft_targets.std() > 0
    with pytest.raises(UsageError, match="both decide the assignment"):
        Criterion(weighters=["cleanliness"], assigner="atss")
    with pytest.raises(UsageError, match="gives soft targets, which the loss GHMLoss does not use"):
        Criterion("ghm", weighters=["cleanliness"])


class Halve(Weighter):
    exclusive = frozenset({"soft_targets"})

    def soft_targets(self, samples):
        return torch.full_like(samples.pos_scores, 0.5)

    def forward(self, samples, values):
        half = torch.full_like(values.classification, 0.5)
        return Weights(half, torch.full_like(values.box, 0.5), {"added": values.box.sum() * 0 + 1.0})


def test_weighters__start_later_and_fade_in():
    samples = samples_of()
    weighter = Halve(warmup_steps=1, fade_steps=1)
    criterion, plain = Criterion(weighters=[weighter]), terms()
    found = [criterion(replace(samples, context=StepContext(step=step))) for step in range(4)]
    boxes = [f["bbox_regression"] / plain["bbox_regression"] for f in found]
    torch.testing.assert_close(torch.stack(boxes), torch.tensor([1, 0.75, 0.5, 0.5]))
    assert [f["added"].item() for f in found] == [0, 0.5, 1, 1]
    torch.testing.assert_close(found[0]["classification"], plain["classification"])
    soft = FocalLoss()(
        samples.logits, samples.labels, samples.with_soft_targets(torch.full_like(samples.pos_ious, 0.5))
    )
    expected = 0.5 * (soft * (1 / (samples.pos_per_image.clamp(min=1) * 3))[samples.image_idxs]).sum()
    torch.testing.assert_close(found[2]["classification"], expected)


@pytest.mark.parametrize("name", sorted(set(WEIGHTERS.points) - {"cleanliness"}))
def test_weighters__do_not_count_in_evaluation(name):
    samples = samples_of()
    with torch.no_grad():
        torch.testing.assert_close(terms(name, samples=samples), terms(samples=samples))


def test_weighters__compose():
    samples = samples_of((2, 3, 6))
    found = terms("pisa", "ohem", "swn", "class_balanced", samples=samples, loss="ghm", box_loss="giou")
    assert set(found) == {"classification", "bbox_regression", "carl", "swn_classification", "swn_box"}
    assert all(term.isfinite() for term in found.values())


class Fixed(torch.nn.Module):
    """A predictor that says of three anchors what it is told, and nothing of the grid."""

    def __init__(self, m):
        super().__init__()
        self.m = torch.tensor(m)

    def forward(self, features):
        return self.m if len(features) == 3 else torch.zeros(len(features), 2)


def test_swn__worked_value():
    weighter = SWNWeighter()
    weighter.predictor = Fixed([[0.2, 0.1], [-0.4, 0.1], [2.6, 0.1]])
    nothing, reduce = torch.zeros(3), Reduce(enabled=False)
    samples = SimpleNamespace(positives=torch.arange(3), pos_ious=nothing, pos_score_logits=nothing, reduce=reduce)
    costs, boxes = torch.tensor([0.3, 0.1, 0.5]), torch.tensor([0.5, 0.2, 0.1])
    answer = weighter(samples, LossValues(costs, boxes, boxes, torch.ones(1), torch.ones(1)))
    assert answer.classification.tolist() == pytest.approx([0.548812] * 3, abs=1e-6)
    assert (answer.classification * costs).sum().item() == pytest.approx(0.493930, abs=1e-5)
    assert (answer.box * boxes).sum().item() == pytest.approx(0.723870, abs=1e-5)
    assert answer.extra["swn_classification"].item() == pytest.approx(0.3, abs=1e-6)
    assert answer.extra["swn_box"].item() == pytest.approx(0.05, abs=1e-6)


@pytest.mark.parametrize("name", ["pisa", "swn"])
def test_weighters__without_a_box_loss_there_are_no_terms_about_boxes(name):
    samples = samples_of((3,))
    with_boxes = Criterion("focal", weighters=[name])(samples)
    without = Criterion("focal", box_loss=None, weighters=[name])(samples)
    assert set(with_boxes) - set(without) == {"bbox_regression", {"pisa": "carl", "swn": "swn_box"}[name]}


@pytest.mark.parametrize(
    ("name", "args", "words"),
    [
        (
            "cleanliness",
            {"form": "papr"},
            "cleanliness: form must be one of reference, paper, not 'papr'. Did you mean",
        ),
        ("swn", {"classification": "anchors"}, "swn: classification must be one of mean, anchor, not 'anchors'. Did"),
    ],
)
def test_weighters__unknown_choices_are_refused(name, args, words):
    with pytest.raises(UsageError, match=words):
        WEIGHTERS.build({"class_path": name, "init_args": args})


def test_iou_balanced__weights_positives_by_their_ious_only():
    samples, weighter = samples_of((2, 3, 6)), IoUBalancedWeighter(eta=2.0)
    seen = []
    weighter.register_forward_hook(lambda module, args, answer: seen.append(answer))
    terms(weighter, samples=samples)
    weights = seen[0].classification
    assert (weights[samples.labels == -1] == 1).all()
    relative = weights[samples.positives] / samples.pos_ious**2
    torch.testing.assert_close(relative, relative[:1].expand_as(relative))
    relative = seen[0].box / samples.pos_ious**1.5
    torch.testing.assert_close(relative, relative[:1].expand_as(relative))


def test_harmonic__weights_are_those_of_the_other_loss():
    samples = samples_of((2, 3))
    seen = []
    weighter = HarmonicWeighter()
    weighter.register_forward_hook(lambda module, args, answer: seen.append((args[1], answer)))
    terms(weighter, samples=samples)
    values, weights = seen[0]
    torch.testing.assert_close(weights.classification[samples.positives], 1 + torch.exp(-values.box))
    torch.testing.assert_close(weights.box, 1 + torch.exp(-values.classification[samples.positives]))
    assert (weights.classification[samples.labels < 0] == 1).all()
    without = {"box_loss": None, "samples": samples}
    assert terms(weighter, **without) == terms(**without)


def test_soft_background__weights_follow_the_overlap_with_boxes_of_the_image():
    samples, weighter = samples_of((2, 0, 6)), SoftBackgroundWeighter()
    seen = []
    weighter.register_forward_hook(lambda module, args, answer: seen.append(answer.classification))
    terms(weighter, samples=samples)
    for image in range(3):
        rows = samples.rows_of(image)
        overlaps = samples.anchor_gt_iou(image)
        best = overlaps.amax(0) if len(overlaps) else torch.zeros(len(rows))
        expected = 0.25 + 0.75 * torch.exp(-50 * torch.exp(-20 * best))
        expected[samples.matched_idxs[rows] >= 0] = 1
        torch.testing.assert_close(seen[0][rows], expected)
    assert (seen[0][samples.rows_of(1)] == 0.25).all()


def test_soft_background__wrong_arguments():
    with pytest.raises(UsageError, match=r"soft_background: floor must be in \[0, 1\], not 2"):
        SoftBackgroundWeighter(floor=2)


def test_ohem__gradients_of_few_anchors_are_computed_once_the_effect_is_complete(monkeypatch):
    late = []
    weighter = {"class_path": "ohem", "init_args": {"warmup_steps": 1, "fade_steps": 1}}
    samples, criterion = samples_of((3, 1)), Criterion(weighters=[weighter])
    monkeypatch.setattr("lit_dense.criterion.slopes_in_backward", lambda wanted: late.append(wanted) or nullcontext())
    for _ in range(3):
        criterion(replace(samples, context=None))
    with torch.no_grad():
        criterion(replace(samples, context=None))
    assert late == [False, False, True, False]


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ([1.0, -1.0], "'weight' must be finite numbers of at least 0, not -1"),
        ([1.0, float("nan")], "'weight' must be finite numbers of at least 0, not nan"),
        ([[1.0], [2.0]], r"'weight' must have one number for each box \[G\], not \[1\]"),
    ],
)
def test_target_weights__wrong_numbers_are_refused(weight, message):
    model = small_retinanet()
    patch(model, weighters=["target_weights"])
    images, targets = random_batch((2,))
    with pytest.raises(UsageError, match=message):
        model(images, [targets[0] | {"weight": torch.tensor(weight)}])
