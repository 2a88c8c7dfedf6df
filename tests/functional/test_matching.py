import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from lit_dense.functional import matching
from lit_dense.functional.matching import largest_ious, match_by_iou
from lit_dense.testing.host_sync import host_reads

ON_A_GRID = AnchorGenerator(((12, 20), (28, 40)), ((0.5, 1.0),) * 2)(
    ImageList(torch.zeros(1, 3, 64, 96), [(64, 96)]), [torch.zeros(1, 1, 8, 12), torch.zeros(1, 1, 4, 6)]
)[0]
# Few different numbers, so that boxes touch, coincide, are empty or inside out, and IoU are equal
COORDINATES = st.sampled_from([-5.0, 0.0, 4.0, 8.0, 8.5, 16.0, 32.0, 60.0, 64.0, 1e4])
STRANGE = st.sampled_from([0.0, 16.0, 3e19, -3e19, 1e38, 1e-30, float("inf"), float("-inf"), float("nan")])
WAYS = {"blocks": -1, "pieces": 2**40}  # up to how many pairs are few


def boxes_of(coordinates, least, most):
    return st.lists(st.lists(coordinates, min_size=4, max_size=4), min_size=least, max_size=most).map(torch.tensor)


def torchvision_matches(anchors, gt_boxes, *thresholds):
    positive, negative, low_quality = thresholds or (0.5, 0.4, True)
    return Matcher(positive, negative, low_quality)(box_iou(gt_boxes, anchors))


@pytest.fixture(params=list(WAYS))
def way(request, monkeypatch):
    """Both ways through, on the processor; with small blocks and pieces, so that there are several."""
    monkeypatch.setattr(matching, "BLOCK", 16)
    monkeypatch.setattr(matching, "PAIRS_AT_ONCE", 1000)
    monkeypatch.setattr(matching, "FEW_PAIRS", WAYS[request.param])


@settings(max_examples=150, deadline=None)
@given(
    gt_boxes=boxes_of(COORDINATES, 1, 7),
    thresholds=st.sampled_from([(0.5, 0.4), (0.5, 0.5), (0.7, 0.0), (1.0, 0.3), (0.0, 0.0)]),
    low_quality=st.booleans(),
    way=st.sampled_from(list(WAYS)),
)
def test_match_by_iou__is_torchvisions_on_a_grid(gt_boxes, thresholds, low_quality, way):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matching, "FEW_PAIRS", WAYS[way])
        got = match_by_iou(ON_A_GRID, gt_boxes, *thresholds, low_quality)
    assert torch.equal(got, torchvision_matches(ON_A_GRID, gt_boxes, *thresholds, low_quality))


@settings(max_examples=150, deadline=None)
@given(
    anchors=st.one_of(boxes_of(COORDINATES, 1, 40), boxes_of(STRANGE, 1, 40)),
    gt_boxes=st.one_of(boxes_of(COORDINATES, 1, 7), boxes_of(STRANGE, 1, 7)),
    low_quality=st.booleans(),
    way=st.sampled_from(list(WAYS)),
)
def test_match_by_iou__is_torchvisions_for_any_anchors(anchors, gt_boxes, low_quality, way):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matching, "FEW_PAIRS", WAYS[way])
        patch.setattr(matching, "BLOCK", 4)
        got = match_by_iou(anchors, gt_boxes, 0.5, 0.4, low_quality)
    assert torch.equal(got, torchvision_matches(anchors, gt_boxes, 0.5, 0.4, low_quality))


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("seed", range(5))
def test_match_by_iou__of_a_dense_scene_is_torchvisions(seed):
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(200, 2, generator=generator) * 90
    gt_boxes = torch.cat([low, low + torch.rand(200, 2, generator=generator) ** 3 * 80], 1)
    assert torch.equal(match_by_iou(ON_A_GRID, gt_boxes), torchvision_matches(ON_A_GRID, gt_boxes))


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("anchor_type", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("gt_type", [torch.float16, torch.float32, torch.float64])
def test_match_by_iou__is_torchvisions_in_every_precision(anchor_type, gt_type):
    low = torch.rand(30, 2, generator=torch.Generator().manual_seed(3)) * 60
    gt_boxes, anchors = torch.cat([low, low + 25], 1).to(gt_type), ON_A_GRID.to(anchor_type)
    assert torch.equal(match_by_iou(anchors, gt_boxes), torchvision_matches(anchors, gt_boxes))


@pytest.mark.usefixtures("way")
def test_match_by_iou__a_ground_truth_that_touches_no_anchor_makes_all_positive_as_in_torchvision():
    gt_boxes = torch.tensor([[0.0, 0, 12, 12], [500, 500, 510, 510]])
    got = match_by_iou(ON_A_GRID, gt_boxes)
    assert (got >= 0).all()
    assert torch.equal(got, torchvision_matches(ON_A_GRID, gt_boxes))


@pytest.mark.usefixtures("way")
def test_match_by_iou__the_first_of_equal_ground_truths_is_taken():
    gt_boxes = torch.tensor([[90.0, 60, 92, 62], [4, 4, 18, 18], [4, 4, 18, 18]])
    got = match_by_iou(ON_A_GRID, gt_boxes)
    assert (got == 1).any()
    assert not (got == 2).any()


def test_match_by_iou__without_ground_truth_all_is_background_and_without_anchors_nothing_is_matched():
    assert match_by_iou(ON_A_GRID, torch.zeros(0, 4)).eq(-1).all()
    assert match_by_iou(torch.zeros(0, 4), torch.ones(3, 4)).shape == (0,)


def test_match_by_iou__does_not_synchronise_with_the_device(monkeypatch):
    monkeypatch.setattr(matching, "FEW_PAIRS", WAYS["pieces"])  # the way of a device
    gt_boxes = torch.tensor([[0.0, 0, 30, 30], [5, 5, 40, 20]])
    assert host_reads(lambda: match_by_iou(ON_A_GRID, gt_boxes)) == []


@pytest.mark.gpu
def test_match_by_iou__on_a_gpu_is_torchvisions():
    low = torch.rand(300, 2, generator=torch.Generator().manual_seed(3)) * 60
    gt_boxes = torch.cat([low, low + 25], 1)
    got = match_by_iou(ON_A_GRID.cuda(), gt_boxes.cuda())
    assert torch.equal(got, torchvision_matches(ON_A_GRID.cuda(), gt_boxes.cuda()))


@pytest.mark.parametrize("way", WAYS)
def test_largest_ious__are_those_of_all_pairs(monkeypatch, way):
    monkeypatch.setattr(matching, "FEW_PAIRS", WAYS[way])
    gt_boxes = torch.tensor([[4.0, 4, 40, 30], [0, 0, 8, 8], [50, 10, 90, 60]])
    expected = box_iou(gt_boxes, ON_A_GRID).amax(0)
    torch.testing.assert_close(largest_ious(ON_A_GRID, gt_boxes), expected, rtol=0, atol=0)
    assert (largest_ious(ON_A_GRID, gt_boxes[:0]) == 0).all()
    assert largest_ious(ON_A_GRID[:0], gt_boxes).shape == (0,)
