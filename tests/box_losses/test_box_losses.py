import pytest
import torch
from hypothesis import given

from lit_dense.box_losses import (
    BOX_LOSSES,
    BalancedL1Loss,
    CIoULoss,
    DIoULoss,
    EIoULoss,
    GIoULoss,
    IoULoss,
    L1Loss,
    MSELoss,
    SIoULoss,
    SmoothL1Loss,
    WIoULoss,
)
from lit_dense.core.errors import UsageError
from tests.builders.boxes import assert_finite_without_area, boxes
from tests.builders.samples import samples_of

VARIANTS = [
    IoULoss(inner=0.7),
    IoULoss(shape=1.0),
    GIoULoss(focaler=[0.3, 0.8]),
    GIoULoss(alpha=0.5),
    DIoULoss(shape=1.0),
    CIoULoss(inner=1.2, focaler=[0.0, 0.95], alpha=3.0, shape=-2.0),
    SIoULoss(alpha=0.5, shape=2.0),
    WIoULoss("v1", inner=0.7, alpha=2.0, shape=1.0),
]
OF_BOXES = [IoULoss(), IoULoss("log"), IoULoss("square"), GIoULoss(), DIoULoss(), CIoULoss(), EIoULoss(), EIoULoss(0.5)]
OF_BOXES += [SIoULoss(), WIoULoss("v1"), WIoULoss("v2"), WIoULoss(), *VARIANTS]
BALANCED = [BalancedL1Loss(), BalancedL1Loss(beta=0.11), BalancedL1Loss(beta=0.11, curve="published")]
OF_DELTAS = [L1Loss(), MSELoss(), SmoothL1Loss(), *BALANCED]


def describe(loss):
    return "-".join(map(str, [type(loss).__name__, *loss.spec["init_args"].values()]))


of_boxes = pytest.mark.parametrize("loss", OF_BOXES, ids=describe)
of_deltas = pytest.mark.parametrize("loss", OF_DELTAS, ids=describe)
of_both = pytest.mark.parametrize("loss", OF_BOXES + OF_DELTAS, ids=describe)


def pair(predicted, target):
    return torch.tensor([predicted]).double(), torch.tensor([target]).double(), None


@pytest.mark.parametrize("name", sorted({*BOX_LOSSES.points} - {"dfl"}))  # dfl compares distributions with distances
def test_box_losses__are_zero_for_equal_boxes_and_positive_otherwise(name):
    samples = samples_of((4,))
    loss = BOX_LOSSES.build(name)
    target = samples.pos_target_deltas if loss.space == "deltas" else samples.pos_gt_boxes
    least = loss(target, target, samples)
    rounding = 1e-4 if name == "nwd" else None  # its authors add a constant to the squared distance
    torch.testing.assert_close(least, torch.zeros_like(least), rtol=None if rounding is None else 0, atol=rounding)
    wrong = loss(target + 0.3, target, samples)
    assert wrong.shape in (target.shape, target.shape[:1])
    assert (wrong > 0).all()


@pytest.mark.parametrize(
    ("predicted", "target", "iou", "giou", "diou", "ciou"),
    [
        ((0, 0, 2, 2), (1, 1, 3, 3), 0.142857, -0.079365, 0.031746, 0.031746),
        ((0, 0, 4, 2), (0, 0, 2, 2), 0.5, 0.5, 0.45, 0.446752),  # mmdetection's CIoU: 0.45
        ((0, 0, 4, 3), (0, 0, 4, 2), 0.666667, 0.666667, 0.656667, 0.656171),
        ((0, 0, 1, 1), (2, 2, 3, 3), 0.0, -0.777778, -0.444444, -0.444444),
    ],
)
def test_box_losses__worked_values_of_boxes(predicted, target, iou, giou, diou, ciou):
    for loss, value in ((IoULoss(), iou), (GIoULoss(), giou), (DIoULoss(), diou), (CIoULoss(), ciou)):
        assert loss(*pair(predicted, target)).tolist() == pytest.approx([1 - value], abs=1e-6)


def test_box_losses__worked_values_of_arguments():
    overlapping = pair((0, 0, 2, 2), (1, 1, 3, 3))
    assert IoULoss("log")(*overlapping).tolist() == pytest.approx([1.945910], abs=1e-6)
    assert IoULoss("square")(*overlapping).tolist() == pytest.approx([0.979592], abs=1e-6)
    assert EIoULoss()(*overlapping).tolist() == pytest.approx([1 - 0.031746], abs=1e-6)
    assert EIoULoss(0.5)(*overlapping).tolist() == pytest.approx([(1 - 0.031746) * 0.142857**0.5], abs=1e-6)


def test_box_losses__worked_values_of_deltas():
    deltas, zero = torch.tensor([[0.05, -0.5, 0.0, 2.0]]), torch.zeros(1, 4)
    for loss, values in [
        (L1Loss(), [0.05, 0.5, 0.0, 2.0]),
        (MSELoss(), [0.0025, 0.25, 0.0, 4.0]),
        (SmoothL1Loss(0.11), [0.011364, 0.445, 0.0, 1.945]),
        (SmoothL1Loss(1), [0.00125, 0.125, 0.0, 1.5]),
        (SmoothL1Loss(0), [0.05, 0.5, 0.0, 2.0]),
    ]:
        assert loss(deltas, zero, None)[0].tolist() == pytest.approx(values, abs=1e-6)
    assert BalancedL1Loss()(deltas, zero, None)[0, 1:].tolist() == pytest.approx([0.400568, 0, 2.578594], abs=1e-6)
    rescaled = BalancedL1Loss(beta=0.11)(deltas, zero, None)
    assert rescaled[0, :3].tolist() == pytest.approx([0.038280, 0.703645, 0], abs=1e-6)


@given(boxes(), boxes())
def test_iou_losses__what_is_added_to_iou_is_never_negative(predicted, target):
    iou, giou, diou, ciou, eiou = (
        loss(*pair(predicted, target)).item() for loss in (IoULoss(), GIoULoss(), DIoULoss(), CIoULoss(), EIoULoss())
    )
    assert iou <= giou + 1e-6
    assert iou <= diou + 1e-6
    assert diou <= ciou + 1e-6
    assert diou <= eiou + 1e-6
    assert giou <= 2
    assert diou <= 2


@of_boxes
@given(box=boxes())
def test_iou_losses__identical_boxes_have_no_loss_and_no_gradient(loss, box):
    predicted, target, samples = pair(box, box)
    cost = loss(predicted.requires_grad_(), target, samples)
    (gradient,) = torch.autograd.grad(cost.sum(), predicted)
    torch.testing.assert_close(cost, torch.zeros_like(cost), rtol=0, atol=1e-6)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-6)


@of_boxes
@given(boxes(), boxes())
def test_iou_losses__are_the_same_for_fractions_and_pixels(loss, predicted, target):
    def cost_and_slope(scale):
        x, y, _ = (t.float() * scale if t is not None else None for t in pair(predicted, target))
        cost = loss(x.requires_grad_(), y, None)
        return cost.detach(), torch.autograd.grad(cost.sum(), x)[0] * scale

    unit = 2.0**-18  # a box of 50 pixels of an image is one of 0.0002
    (small, small_slope), (whole, slope) = cost_and_slope(unit), cost_and_slope(1.0)
    torch.testing.assert_close(small, whole, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(small_slope, slope, rtol=1e-4, atol=1e-5)


@of_boxes
def test_iou_losses__are_finite_for_boxes_without_area_in_fractions(loss):
    assert_finite_without_area(lambda predicted, target: loss(predicted, target, None), [0.3, 0.3, 0.3, 0.3])


@pytest.mark.parametrize("loss", [IoULoss(), GIoULoss(), DIoULoss(), EIoULoss()], ids=describe)
def test_box_losses__gradient_of_boxes_is_that_of_the_loss(loss):
    predicted, target = torch.tensor(
        [[[0.0, 0, 2, 2], [3, 4, 50, 60], [0, 0, 1, 1]], [[1.0, 1, 3, 3], [10, 1, 45, 75], [2, 2, 3, 3.5]]],
        dtype=torch.float64,
    )
    assert torch.autograd.gradcheck(lambda x: loss(x, target, None), predicted.requires_grad_())


def test_ciou__gradient_does_not_flow_through_its_factor():
    predicted, target = torch.tensor([[[0.0, 0, 4, 2]], [[0.0, 0, 2, 2]]], dtype=torch.float64)
    predicted.requires_grad_()

    def ciou(x):
        """CIoU with the factor of these boxes, as a constant."""
        width, height = (x[:, 2:] - x[:, :2]).unbind(1)
        v = 4 / torch.pi**2 * (torch.pi / 4 - torch.atan(width / height)) ** 2
        return DIoULoss()(x, target, None) + 0.077417 * v

    expected = torch.autograd.grad(ciou(predicted).sum(), predicted)
    actual = torch.autograd.grad(CIoULoss()(predicted, target, None).sum(), predicted)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)


@of_deltas
def test_box_losses__gradient_of_deltas_is_that_of_the_loss(loss):
    deltas = torch.tensor([[0.05, -0.5, 1.2, 2.0]], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[0.0, 0.0, 0.5, -3.0]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: loss(x, target, None), deltas)


@of_both
def test_box_losses__without_positives_are_empty_and_part_of_the_graph(loss):
    predicted = torch.zeros(0, 4, requires_grad=True)
    cost = loss(predicted, torch.zeros(0, 4), None)
    assert cost.shape == ((0,) if loss.space == "boxes" else (0, 4))
    cost.sum().backward()
    assert predicted.grad.shape == (0, 4)


@of_boxes
@pytest.mark.parametrize(
    ("predicted", "target"),
    [
        ((0, 0, 1, 1), (1300, 700, 1333, 800)),  # far
        ((0, 0, 1, 1), (1, 0, 2, 1)),  # touching
        ((0, 0, 0, 0), (0, 0, 2, 2)),
        ((1, 1, 1, 1), (0, 0, 2, 2)),
        ((1, 0, 1, 2), (0, 0, 2, 2)),
        ((0, 1, 2, 1), (0, 0, 2, 2)),
        ((5, 5, 5, 5), (0, 0, 2, 2)),
        ((0, 0, 5, 1e-20), (0, 0, 5, 5)),
        ((0, 0, 1e-6, 1e-6), (0, 0, 1e-6, 1e-6)),
        ((0, 0, 2, 2), (1, 1, 1, 1)),
        ((1, 1, 1, 1), (1, 1, 1, 1)),
        ((1, 1, 1, 1), (2, 2, 2, 2)),
        ((-1e9, -1e9, 1e9, 1e9), (0, 0, 2, 2)),
        ((0, 0, 1e9, 2e-3), (0, 0, 2, 2)),
    ],
)
def test_iou_losses__are_finite_for_boxes_without_area_and_far_away(loss, predicted, target):
    predicted = torch.tensor([predicted], requires_grad=True, dtype=torch.float32)
    cost = loss(predicted, torch.tensor([target], dtype=torch.float32), None)
    (gradient,) = torch.autograd.grad(cost.sum(), predicted)
    assert cost.isfinite().all()
    assert gradient.isfinite().all()


def test_ciou__flat_boxes_do_not_change_the_loss_of_others():
    predicted = torch.tensor([[0.0, 1, 2, 1], [0, 0, 4, 2], [0, 0, 4, 2]], requires_grad=True)
    target = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 4, 0]])
    cost = CIoULoss()(predicted, target, None)
    (gradient,) = torch.autograd.grad(cost.sum(), predicted)
    assert cost.tolist() == pytest.approx([1.0, 1 - 0.446752, 1.05], abs=1e-6)  # DIoU for the two flat ones
    torch.testing.assert_close(
        gradient[1:2], torch.autograd.grad(CIoULoss()(predicted[1:2], target[1:2], None).sum(), predicted)[0][1:2]
    )


@of_deltas
@pytest.mark.parametrize("difference", [0.0, 1e-20, -1e-6, 1e4, -1e15])
def test_delta_losses__are_finite_for_small_and_large_deltas(loss, difference):
    deltas = torch.full((1, 4), difference, requires_grad=True)
    cost = loss(deltas, torch.zeros(1, 4), None)
    (gradient,) = torch.autograd.grad(cost.sum(), deltas)
    assert cost.isfinite().all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("name", "args", "words"),
    [
        ("balanced_l1", {"alpha": 0.0}, "alpha must be at least"),
        ("balanced_l1", {"gamma": 0.0}, "gamma must be in"),
        ("balanced_l1", {"alpha": 0.01}, "gamma must be in"),
        ("balanced_l1", {"beta": 0.0}, "beta must be at least"),
        (
            "balanced_l1",
            {"curve": "publish"},
            "curve must be one of continuous, published, not 'publish'. Did you mean",
        ),
        ("eiou", {"gamma": -1.0}, "gamma must be at least"),
        ("ghm_r", {"update": "papr"}, "ghm_r: update must be one of corrected, paper, reference, not 'papr'. Did you"),
        ("iou", {"form": "cubic"}, "form must be one of linear, log, square"),
        ("iou", {"form": "squared"}, "not 'squared'. Did you mean 'square'"),
        ("iou", {"form": "square", "alpha": 3.0}, "alpha=3.0 needs form='linear', not form='square'"),
        ("giou", {"alpha": 0.0}, "giou: alpha must be in"),
        ("diou", {"inner": 0.0}, "diou: inner must be in"),
        ("ciou", {"focaler": [0.5, 0.2]}, "ciou: focaler must be two IoUs in ascending order"),
        ("ciou", {"focaler": [0.5]}, "focaler must be two IoUs"),
        ("ciou", {"focaler": 0.5}, "focaler must be two IoUs"),
        ("ciou", {"focaler": ["a", "b"]}, "focaler must be two IoUs"),
        ("eiou", {"shape": float("nan")}, "eiou: shape must be in"),
        ("siou", {"theta": 0.0}, "theta must be at least 1"),
        ("nwd", {"constant": 0.0}, "constant must be at least"),
        ("nwd", {"inner": 0.7}, "has no argument 'inner'"),
        ("wiou", {"version": "v4"}, "version must be one of v1, v2, v3, not 'v4'"),
        ("wiou", {"momentum": 0.0}, "momentum must be in"),
        ("smooth_l1", {"beta": -1.0}, "beta must be at least"),
    ],
)
def test_box_losses__refuse_arguments_out_of_range(name, args, words):
    with pytest.raises(UsageError, match=words):
        BOX_LOSSES.build({"class_path": name, "init_args": args})


def test_box_losses__take_a_whole_number_for_a_float():
    assert BOX_LOSSES.build({"class_path": "ghm_r", "init_args": {"bins": 20.0}}).history.shape == (20,)
