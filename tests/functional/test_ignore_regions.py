import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_dense.functional import matching
from lit_dense.functional.ignore_regions import in_regions, without_ignored

BOXES = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [4.9, 0, 14.9, 10], [0, 0, 100, 100], [3, 3, 3, 9]])
REGIONS = torch.tensor([[0.0, 0, 10, 20], [50, 50, 60, 60]])


def test_in_regions__by_the_share_of_the_box():
    assert in_regions(BOXES, REGIONS).tolist() == [True, False, True, False, False]
    assert in_regions(BOXES, REGIONS, 0.4).tolist() == [True, True, True, False, False]
    assert not in_regions(BOXES, REGIONS[:0]).any()
    assert in_regions(BOXES[:0], REGIONS).shape == (0,)


@given(st.integers(0, 2**31), st.integers(0, 9))
def test_in_regions__chunks_give_the_same(seed, count):
    generator = torch.Generator().manual_seed(seed)
    boxes, regions = (torch.rand(n, 4, generator=generator) * 50 for n in (30, count))
    boxes[:, 2:] += boxes[:, :2]
    regions[:, 2:] += regions[:, :2]
    whole = in_regions(boxes, regions)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matching, "PAIRS_AT_ONCE", 30)
        assert torch.equal(in_regions(boxes, regions), whole)


def test_without_ignored__only_background_changes():
    matched = torch.tensor([-1, -1, 3, -1, -2])
    assert without_ignored(matched, BOXES, REGIONS).tolist() == [-2, -1, 3, -1, -2]
    assert without_ignored(matched, BOXES, None) is matched
    assert without_ignored(matched, BOXES, REGIONS[:0]) is matched
