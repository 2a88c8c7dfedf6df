"""``class_weights`` of a criterion: the numbers, what they multiply, and where names and counts come from."""

from types import SimpleNamespace

import pytest
import torch

from lit_dense import ClassCounts, LitRetinaNet, SwapLoss
from lit_dense.core.class_weights import ClassWeights
from lit_dense.core.errors import UsageError
from lit_dense.criterion import Criterion
from lit_dense.detectors import patch
from lit_dense.functional.balanced_classes import inverse_count_weights
from lit_dense.losses import LOSSES
from tests.builders.detectors import (
    COUNTS,
    NUM_CLASSES,
    random_batch,
    small_faster_rcnn,
    small_fcos,
    small_retinanet,
    small_ssd,
)
from tests.builders.lit_modules import Foreign
from tests.builders.samples import samples_of

NAMES = ["dent", "scratch", "bonnet", "wheel"]
NETWORK = {"backbone": "tiny", "fpn_channels": 16, "head_convs": 1, "min_size": 64, "max_size": 64}


def values(weights, counts=None, names=None, number=NUM_CLASSES, **arguments):
    part = ClassWeights(weights, **arguments)
    part.prepare(number)
    if names:
        part.receive_names(names)
    if counts is not None:
        part.receive_class_counts(ClassCounts(torch.tensor(counts), torch.tensor(counts), 1000))
    part.check_ready()
    return part.values


def close(actual, expected):
    torch.testing.assert_close(actual, torch.tensor(expected), rtol=0, atol=1e-6)


def test_class_weights__worked_values_of_balanced():
    counts = [1000, 100, 10, 0]
    close(values("balanced", counts, power=1.0), [0.027027, 0.270270, 2.702703, 1.0])
    close(values("balanced", counts, power=0.25), [0.505003, 0.898037, 1.596960, 1.0])
    close(values("balanced", counts, power=0.0), [1.0, 1.0, 1.0, 1.0])
    torch.testing.assert_close(values("balanced", counts), values("balanced", counts, power=0.5))
    by_sklearn = torch.tensor([1110 / (3 * n) for n in counts[:3]])
    torch.testing.assert_close(values("balanced", counts, power=1.0)[:3], by_sklearn / by_sklearn.mean())


def test_class_weights__balanced_ratio_is_limited():
    weights = inverse_count_weights(torch.tensor([100_000.0, 50_000.0, 1.0]))
    assert weights.max() / weights.min() == pytest.approx(100)
    assert weights.mean() == pytest.approx(1)
    close(inverse_count_weights(torch.zeros(2)), [1.0, 1.0])


def test_class_weights__given_numbers_have_mean_1_over_the_classes_that_occur():
    close(values([1, 2, 5, 0]), [0.5, 1.0, 2.5, 0.0])
    close(values([1, 2, 6, 4], [5, 5, 5, 0]), [1 / 3, 2 / 3, 2.0, 4 / 3])
    close(values({"bonnet": 5}, names=NAMES), [0.5, 0.5, 2.5, 0.5])
    close(values({"30": 3}, names=["30", "50"], number=2), [1.5, 0.5])
    close(values("balanced", number=1), [1.0])


def test_class_weights__numbers_beyond_float32():
    close(values([1e30, 1e30, 0, 0]), [2.0, 2.0, 0.0, 0.0])
    close(values([1e-60, 1e-60, 3e-60, 3e-60]), [0.5, 0.5, 1.5, 1.5])
    with pytest.raises(UsageError, match=r"class_weights\[0\] must be in \[0, 1e\+30\], not 1e\+300"):
        values([1e300, 1, 1, 1])


@pytest.mark.parametrize(
    ("weights", "names", "words"),
    [
        ("balancd", None, "must be balanced, a list with one number .*, not 'balancd'. Did you mean 'balanced'"),
        ([1, 2], None, "class_weights has 2 numbers, but the head has 4 classes"),
        ([1, -1, 1, 1], None, r"class_weights\[1\] must be in \[0"),
        ([1, float("nan"), 1, 1], None, r"class_weights\[1\] must be in \[0"),
        ([1, float("inf"), 1, 1], None, r"class_weights\[1\] must be in \[0"),
        ([0, 0, 0, 0], None, "class_weights is 0 for every class"),
        ({"dent": "x"}, None, r"class_weights\[dent\] must be a number, not 'x'"),
        (3.0, None, "must be balanced, a list or a dict, not 3.0"),
        ({"scratsch": 2}, NAMES, "unknown class 'scratsch'. Did you mean 'scratch'. Classes: dent, scratch, bonnet"),
        ({"dent": 2}, [*NAMES, "e", "f"], "the data has 6 classes, but the head has 4: build .* num_classes=6"),
        ({"dent": 2}, None, r"names classes \(dent\), and the names of the head's columns are unknown"),
        ("balanced", None, "class_weights='balanced' needs to know how often each class occurs"),
    ],
)
def test_class_weights__errors_name_the_cure(weights, names, words):
    with pytest.raises(UsageError, match=words):
        values(weights, names=names)


def test_class_weights__zero_for_every_class_that_occurs():
    with pytest.raises(UsageError, match="0 for every class that occurs"):
        values([0, 0, 0, 1], [5, 5, 5, 0])


def terms(samples, **arguments):
    return Criterion(class_counts=COUNTS, **arguments)(samples)["classification"]


def test_class_weights__multiply_positives_or_whole_columns():
    samples, weights = samples_of((4, 2)), [0.4, 0.8, 1.6, 1.2]  # mean of the three that occur: 0.9333
    factor = torch.tensor(weights) / (2.8 / 3)
    for on in ("positives", "columns"):
        actual = terms(samples, class_weights=weights, class_weight_on=on, normalizer="none")
        both = factor if on == "columns" else torch.stack([torch.ones(4), factor])
        expected = terms(samples.with_class_weights(both), normalizer="none")
        torch.testing.assert_close(actual, expected)
    assert terms(samples, class_weights=weights) != terms(samples, class_weights=weights, class_weight_on="columns")
    torch.testing.assert_close(terms(samples, class_weights=[2, 2, 2, 2]), terms(samples))


@pytest.mark.parametrize("name", sorted(LOSSES.points))
def test_class_weights__of_every_loss_change_the_positives_of_the_class(name):
    weights = [1, 1, 1, 50]
    samples = samples_of((3, 3), loss=name)
    plain, weighted = (
        Criterion(name, class_counts=COUNTS, **arguments)(samples)["classification"]
        for arguments in ({}, {"class_weights": weights})
    )
    assert weighted.isfinite()
    has_last = bool((samples.pos_labels == 3).any())
    assert (weighted > plain) == has_last


@pytest.mark.parametrize("on", ["positives", "columns"])
def test_class_weights__of_federated_are_those_of_the_loss_inside(on):
    samples = samples_of((4, 2))
    weights = {"class_weights": [1, 2, 4, 3], "class_weight_on": on, "normalizer": "none"}
    every_class = {"class_path": "federated", "init_args": {"loss": "focal", "image_counts": [9, 9, 9, 9]}}
    torch.testing.assert_close(terms(samples, loss=every_class, **weights), terms(samples, loss="focal", **weights))


@pytest.mark.parametrize("name", ["softmax", "seesaw"])
def test_class_weights__of_a_loss_without_class_weights_are_weights_of_positives(name):
    samples = samples_of((4, 2), loss=name)
    weights = torch.tensor([0.5, 1.0, 1.5, 4.0])
    actual = terms(samples, loss=name, class_weights=weights.tolist(), normalizer="none")
    loss = LOSSES.build(name)
    loss.prepare(NUM_CLASSES)
    plain = loss(samples.logits, samples.labels, samples)
    plain[samples.positives] *= weights[samples.pos_labels]
    torch.testing.assert_close(actual, plain[samples.valid].sum())
    with pytest.raises(UsageError, match="class_weight_on='columns' needs a loss of single logits"):
        Criterion(name, class_weights="balanced", class_weight_on="columns")


def test_class_weights__compose_with_weighters_and_are_off_in_evaluation():
    samples = samples_of((4, 2))
    arguments = {"weighters": ["target_weights"], "class_weights": [1, 2, 3, 4]}
    samples.target_fields["weight"] = torch.full((len(samples.gt_labels),), 2.0)
    doubled = terms(samples, normalizer="none", **arguments)
    one = terms(samples, normalizer="none", class_weights=[1, 2, 3, 4])
    assert one < doubled < 2 * one
    with torch.no_grad():
        torch.testing.assert_close(terms(samples, **arguments), terms(samples))
        Criterion(class_weights="balanced")(samples)  # counts are not needed either


@pytest.mark.parametrize("argument", [{"class_weight_power": 5}, {"class_weight_on": "rows"}])
def test_criterion__arguments_of_class_weights_are_checked_without_weights(argument):
    with pytest.raises(UsageError, match=next(iter(argument))):
        Criterion(**argument)


def test_class_weights__state_dict_and_spec():
    plain, weighted = Criterion(), Criterion(class_weights="balanced", class_counts=COUNTS)
    weighted.prepare(NUM_CLASSES)
    assert weighted.state_dict().keys() == plain.state_dict().keys()
    again = Criterion(**Criterion(class_weights={"dent": 2}, class_weight_on="columns").spec)
    assert again.spec["class_weights"] == {"dent": 2.0}
    assert again.class_weight_on == "columns"


def test_class_weights__patch_and_stages():
    criterion = patch(small_retinanet(), class_weights="balanced", class_counts=COUNTS)
    close(criterion.class_weights.values, inverse_count_weights(COUNTS.instances.float(), 0.5).tolist())
    assert patch(small_faster_rcnn(), class_weights=[1, 2, 3, 4]).class_weights is not None
    with pytest.raises(UsageError, match="class_weights='balanced' needs to know"):
        patch(small_retinanet(), class_weights="balanced")
    with pytest.raises(UsageError, match="names classes"):
        patch(small_retinanet(), class_weights={"dent": 2})


@pytest.mark.parametrize("make", [small_retinanet, small_fcos, small_ssd, small_faster_rcnn])
def test_class_weights__of_every_detector(make):
    images, targets = random_batch((3, 2))
    first = 0 if make in (small_retinanet, small_fcos) else 1
    targets = [{**target, "labels": target["labels"] * 0 + 2 + first} for target in targets]

    def total(**arguments):
        model = make()
        patch(model, **arguments)
        torch.manual_seed(0)
        terms = model(images, targets)
        return sum(terms[name] for name in terms if name.startswith("loss_classif") or name == "classification")

    assert total(class_weights=[1, 1, 5, 1]) > total() > total(class_weights=[1, 1, 0.1, 1])


def data(categories=None, counts=COUNTS):
    return SimpleNamespace(categories=categories, class_counts=counts, num_classes=NUM_CLASSES)


def test_class_weights__swap_loss_takes_names_and_counts_of_the_data_module():
    categories = [{"id": 2 * i, "name": name} for i, name in enumerate(NAMES)]
    swap = SwapLoss(class_weights={"bonnet": 5})
    swap.setup(SimpleNamespace(datamodule=data(categories), callbacks=()), Foreign(), "fit")
    close(swap.criterion.class_weights.values, [3 / 7, 3 / 7, 15 / 7, 3 / 7])
    with pytest.raises(UsageError, match=r"unknown class 'bonet'\. Did you mean 'bonnet'"):
        SwapLoss(class_weights={"bonet": 5}).setup(SimpleNamespace(datamodule=data(categories)), Foreign(), "fit")
    swap = SwapLoss(class_weights="balanced")
    swap.setup(SimpleNamespace(datamodule=data()), Foreign(), "fit")
    assert swap.criterion.class_weights.values[2] == swap.criterion.class_weights.values.max()


def test_swap_loss__a_checkpoint_may_have_other_class_weights():
    first = SwapLoss("focal", class_weights=[1, 2, 3, 4])
    first.setup(SimpleNamespace(), Foreign(), "fit")
    for weights in (None, "balanced", [1, 1, 1, 2]):
        later = SwapLoss("focal", class_weights=weights, class_counts=COUNTS)
        later.load_state_dict(first.state_dict())
        later.setup(SimpleNamespace(), Foreign(), "fit")


def test_class_weights__lit_retinanet_follows_the_columns_of_its_checkpoint():
    order = [{"id": 1, "name": "red"}, {"id": 2, "name": "blue"}]
    model = LitRetinaNet(2, **NETWORK, class_weights={"blue": 3})
    assert model.hparams["class_weights"] == {"blue": 3.0}
    model.categories = order
    counts = ClassCounts(torch.tensor([5, 9]), torch.tensor([5, 9]), 9)
    offered = SimpleNamespace(categories=order[::-1], class_counts=counts, num_classes=2)
    model.trainer = SimpleNamespace(datamodule=offered, precision="32-true", callbacks=(), ckpt_path=None)
    model.setup("fit")
    close(model.criterion.class_weights.values, [0.5, 1.5])
    with pytest.raises(UsageError, match="rpn: its only class is that of all objects"):
        LitRetinaNet.__bases__[0]("faster_rcnn", 2, backbone="tiny", rpn={"class_weights": [1]})
