"""What every classification loss keeps, by name: a new loss is tested here without a word."""

from dataclasses import replace

import pytest
import torch

from lit_dense.box_losses import BOX_LOSSES
from lit_dense.core.errors import UsageError
from lit_dense.core.step_context import StepContext
from lit_dense.losses import LOSSES, BCELoss, FocalLoss
from tests.builders.detectors import NUM_CLASSES
from tests.builders.losses import ready
from tests.builders.samples import samples_of

PLAIN_BCE = {"class_path": "focal_star", "init_args": {"gamma": 1.0, "beta": 0.0}}  # without a weight of one half


@pytest.mark.parametrize("name", sorted(LOSSES.points))
def test_losses__a_right_answer_costs_less_than_a_wrong_one(name):
    samples, loss = samples_of((3,), loss=name), ready(name)
    logits = samples.logits.detach()
    wrong = torch.full_like(logits, 2.0)
    right = torch.full_like(logits, -4.0)
    if loss.extra_logits:  # the last columns: background, or object and background
        is_object = samples.labels >= 0
        right[:, -1], wrong[:, -1] = torch.where(is_object, -9.0, 9.0), torch.where(is_object, 9.0, -9.0)
    wrong[samples.positives, samples.pos_labels] = -4.0
    right[samples.positives, samples.pos_labels] = 2.0
    cheap, dear = loss(right, samples.labels, samples), loss(wrong, samples.labels, samples)
    counted = samples.labels >= 0 if "weights" in loss.exclusive else samples.valid  # ranks are errors of positives
    assert (dear[counted] > 0).all()
    if "normalizer" in loss.exclusive:  # a rare kind of element may weigh more than a wrong one
        cheap, dear = cheap[counted].sum(), dear[counted].sum()
    assert (cheap <= dear).all()


@pytest.mark.parametrize("name", sorted(LOSSES.points))
def test_losses__ignored_anchors_cost_nothing(name):
    samples, loss = samples_of((3,), loss=name), ready(name)
    labels = samples.labels.clone()
    labels[samples.labels == -1] = -2
    assert (loss(samples.logits, labels, samples)[labels == -2] == 0).all()


@pytest.mark.parametrize("name", sorted(LOSSES.points))
def test_losses__a_bias_at_the_prior_gives_scores_at_the_prior(name):
    loss = LOSSES.build(name)
    scores = loss.score_logits(loss.prior_bias(NUM_CLASSES, loss.prior)).sigmoid()
    assert scores.shape == (NUM_CLASSES,)
    expected = loss.prior / (NUM_CLASSES if loss.extra_logits else 1)  # one softmax is shared by all classes
    torch.testing.assert_close(scores, torch.full_like(scores, expected), rtol=1e-4, atol=0)


def test_losses__arguments_out_of_range_are_named():
    with pytest.raises(UsageError, match=r"focal: gamma must be at least 0, not -1"):
        FocalLoss(gamma=-1)
    with pytest.raises(UsageError, match=r"bce: alpha must be in \[0, 1\], not nan"):
        BCELoss(alpha=float("nan"))
    with pytest.raises(UsageError, match="gamma_neg must be 0 or at least 1"):
        LOSSES.build({"class_path": "asl", "init_args": {"gamma_neg": 0.5}})
    with pytest.raises(UsageError, match=r"must be one of single logits.*SoftmaxLoss does not use class weights"):
        LOSSES.build({"class_path": "federated", "init_args": {"loss": "softmax"}})
    with pytest.raises(UsageError, match=r"must be one of single logits, as focal is, not federated itself"):
        LOSSES.build({"class_path": "federated", "init_args": {"loss": "federated"}})
    with pytest.raises(UsageError, match=r"bce: pos_weight must be a list of numbers, one for each class, not \['a'\]"):
        BCELoss(pos_weight=["a"])
    with pytest.raises(UsageError, match=r"eql: frequencies must be numbers of at least 0, not -1.0 \(class 1\)"):
        LOSSES.build({"class_path": "eql", "init_args": {"frequencies": [1, -1]}})
    with pytest.raises(
        UsageError, match=r"ghm: update must be one of corrected, paper, reference, not 'papr'\. Did you"
    ):
        LOSSES.build({"class_path": "ghm", "init_args": {"update": "papr"}})


def test_losses__a_whole_number_may_be_a_float():
    assert LOSSES.build({"class_path": "ghm", "init_args": {"bins": 20.0}}).history.shape == (20,)


@pytest.mark.parametrize(
    ("loss", "same"),
    [
        ({"class_path": "federated", "init_args": {"loss": "focal", "image_counts": [1, 1, 1, 1]}}, "focal"),
        ({"class_path": "eql", "init_args": {"threshold": 0.0}}, PLAIN_BCE),
        ("eql_v2", PLAIN_BCE),
        ("efl", "focal"),
        ({"class_path": "asl", "init_args": {"gamma_pos": 0, "gamma_neg": 0, "margin": 0}}, PLAIN_BCE),
    ],
    ids=str,
)
def test_losses__some_start_as_another(loss, same):
    samples = samples_of((3, 0, 4))
    one, other = (ready(part)(samples.logits, samples.labels, samples) for part in (loss, same))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_federated_loss__draws_the_same_classes_for_the_same_step_and_others_later():
    samples = samples_of((1,))
    loss = ready({"class_path": "federated", "init_args": {"num_classes": 2}})
    drawn = {}
    for step in (0, 0, 1, 2, 3, 4, 5):
        selected = loss.classes_of_step(replace(samples, context=StepContext(step=step)))
        assert selected[samples.gt_labels].all()
        assert not selected[3] or (samples.gt_labels == 3).any()  # no image shows it
        assert torch.equal(drawn.setdefault(step, selected), selected)
    assert len({tuple(selected.tolist()) for selected in drawn.values()}) > 1


def test_gradient_sums__grow_with_every_step_and_change_weights():
    samples, loss = samples_of((4, 5)), ready("eql_v2")
    first = loss(samples.logits, samples.labels, samples)
    loss.commit()
    again = loss(samples.logits, samples.labels, samples)
    assert (loss.negative_gradients > 0).all()
    assert loss.ratio().min() < 0.5  # background pushes classes down
    assert again[samples.labels == -1].sum() < first[samples.labels == -1].sum()
    assert again[samples.positives].sum() > first[samples.positives].sum()


def test_ghm_loss__separate_levels_add_up_the_losses_of_each_level_alone():
    samples = samples_of((3, 1), loss="ghm")
    apart = LOSSES.build({"class_path": "ghm", "init_args": {"levels": "separate", "momentum": 0.0}})
    values = apart(samples.logits, samples.labels, samples)
    apart.commit()
    assert apart.steps == samples.num_levels == 2
    joint = LOSSES.build({"class_path": "ghm", "init_args": {"momentum": 0.0}})
    for level in range(2):
        labels = samples.labels.masked_fill(samples.level_idxs != level, -2)
        alone = joint(samples.logits, labels, samples)
        torch.testing.assert_close(values[samples.level_idxs == level], alone[samples.level_idxs == level])


def test_ghm_loss__separate_levels_need_a_detector_with_levels():
    samples = replace(samples_of((3,), loss="ghm"), geometry=None)
    with pytest.raises(UsageError, match="does not tell the sizes of its levels"):
        LOSSES.build({"class_path": "ghm", "init_args": {"levels": "separate"}})(
            samples.logits, samples.labels, samples
        )


def test_ghm_loss__of_a_checkpoint_without_a_power_has_the_power_of_its_time():
    for name, build in (("ghm", LOSSES.build), ("ghm_r", BOX_LOSSES.build)):
        part = build({"class_path": name, "init_args": {"power": 0.3, "levels": "separate"}})
        part.follow_spec(part.spec)
        assert (part.power, part.levels) == (0.3, "separate")
        part.follow_spec({"class_path": name, "init_args": {"bins": 30, "momentum": 0.75, "update": "corrected"}})
        assert (part.power, part.levels) == (1.0, "joint")
        assert part.spec["init_args"]["power"] == 1.0
    outer = LOSSES.build({"class_path": "federated", "init_args": {"loss": "ghm"}})
    outer.follow_spec({"init_args": {"loss": {"class_path": "ghm", "init_args": {"bins": 30}}}})
    assert outer.loss.power == 1.0
    assert outer.spec["init_args"]["loss"]["init_args"]["power"] == 1.0
