import pytest
import torch
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import box_iou

from lit_dense.assigners import ASSIGNERS, AssignInput, Assignment, ATSSAssigner, TopNAssigner
from lit_dense.core.errors import UsageError
from lit_dense.core.geometry import Geometry
from tests.builders.assignment import atss_with_loops

GEOMETRY = Geometry([(8, 8), (4, 4)], [(64, 64)])


def grid_anchors():
    """One anchor for each cell of two levels of a picture of 64 pixels."""
    levels = []
    for cells, size in ((8, 16.0), (4, 32.0)):
        centre = (torch.arange(cells) + 0.5) * 64 / cells
        y, x = torch.meshgrid(centre, centre, indexing="ij")
        centres = torch.stack([x, y], -1).reshape(-1, 2)
        levels.append(torch.cat([centres - size / 2, centres + size / 2], 1))
    return torch.cat(levels)


def objects(number, seed=0):
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(number, 2, generator=generator) * 40
    return torch.cat([low, low + 8 + torch.rand(number, 2, generator=generator) * 16], 1)


def seen(anchors, boxes, **fields):
    """An image with predictions near the anchors."""
    generator = torch.Generator().manual_seed(3)
    given = {
        "gt_labels": torch.zeros(len(boxes), dtype=torch.int64),
        "logits": torch.randn(len(anchors), 4, generator=generator),
        "deltas": 0.1 * torch.randn(len(anchors), 4, generator=generator),
        "box_coder": BoxCoder((1.0, 1.0, 1.0, 1.0)),
        "score_logits": lambda x: x,
        "geometry": GEOMETRY,
        "losses": lambda rows, matched: rows.float() % 7,
        **fields,
    }
    return AssignInput(anchors, boxes, **given)


@pytest.mark.parametrize("name", sorted(ASSIGNERS.points))
def test_assigners__answer_for_each_anchor(name):
    anchors, boxes = grid_anchors(), objects(5)
    answer = ASSIGNERS.build(name)(seen(anchors, boxes))
    matched = answer.matched_idxs if isinstance(answer, Assignment) else answer
    assert matched.shape == anchors.shape[:1]
    assert matched.min() >= -2
    assert 0 <= matched.max() < len(boxes)


def test_top_n__matches_the_anchors_of_greatest_iou():
    anchors, boxes = grid_anchors(), objects(4)
    matched = TopNAssigner(3)(AssignInput(anchors, boxes))
    ious = box_iou(boxes, anchors)
    expected = {int(anchor) for row in ious for anchor in row.argsort(descending=True)[:3] if row[anchor] > 0}
    assert set((matched >= 0).nonzero().flatten().tolist()) == expected
    positive = matched >= 0
    assert torch.equal(matched[positive], ious.argmax(0)[positive])
    assert (TopNAssigner(1000)(AssignInput(anchors, boxes)) >= 0).sum() == (ious.max(0).values > 0).sum()


def test_top_n__object_that_touches_few_anchors_takes_none_of_its_neighbours():
    anchors, near = grid_anchors(), torch.tensor([[10.0, 10, 40, 40]])
    far = torch.tensor([[61.0, 61, 63, 63]])  # touches three
    alone = TopNAssigner(12)(AssignInput(anchors, near)) >= 0
    both = TopNAssigner(12)(AssignInput(anchors, torch.cat([near, far])))
    assert torch.equal(both == 0, alone)
    assert 0 < (both == 1).sum() < 12


@pytest.mark.parametrize("seed", range(5))
def test_atss__equals_the_formula(seed):
    anchors, boxes = grid_anchors(), objects(6, seed) + 0.123  # no distances are equal
    expected = atss_with_loops(anchors, boxes, [(0, 64, 4), (64, 80, 4)])
    assert ATSSAssigner(4)(AssignInput(anchors, boxes, geometry=GEOMETRY)).tolist() == expected


def test_atss__works_in_half_precision():
    anchors, boxes = grid_anchors(), objects(6) // 1
    expected = ATSSAssigner(4)(AssignInput(anchors, boxes, geometry=GEOMETRY))
    for kind in (torch.bfloat16, torch.float64):
        assert torch.equal(ATSSAssigner(4)(AssignInput(anchors.to(kind), boxes.to(kind), geometry=GEOMETRY)), expected)


def test_atss__needs_levels():
    with pytest.raises(UsageError, match="does not provide the sizes of its levels"):
        ATSSAssigner()(AssignInput(grid_anchors(), objects(1)))


def test_assigners__see_predictions_when_they_ask():
    anchors, boxes = grid_anchors(), objects(3)
    logits, deltas = torch.randn(len(anchors), 4, requires_grad=True), torch.zeros(len(anchors), 4)
    coder = BoxCoder((1.0, 1.0, 1.0, 1.0))
    image = AssignInput(anchors, boxes, torch.zeros(3), logits, deltas, coder, lambda x: 2 * x)
    torch.testing.assert_close(image.scores, (2 * logits.detach()).sigmoid())
    torch.testing.assert_close(image.boxes, anchors)
    assert not image.scores.requires_grad
    for name in ("scores", "boxes"):
        with pytest.raises(UsageError, match=f"does not provide its {name}"):
            getattr(AssignInput(anchors, boxes), name)
