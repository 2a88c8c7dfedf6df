import pytest
import torch

from lit_dense import ClassCounts
from lit_dense.core.class_counts import as_class_counts
from lit_dense.core.errors import UsageError


def test_class_counts__follow_the_columns_of_a_head():
    counts = ClassCounts(torch.tensor([5, 7, 9]), torch.tensor([3, 4, 6]), num_images=10, num_annotated=8)
    moved = counts.in_columns((2, -1, 0), 4)
    assert moved.instances.tolist() == [9, 0, 5, 0]
    assert moved.images.tolist() == [6, 0, 3, 0]
    assert (moved.num_images, moved.num_annotated) == (10, 8)


@pytest.mark.parametrize("counts", [[28, 9], (28, 9), torch.tensor([28, 9])])
def test_as_class_counts__numbers_of_boxes_are_enough(counts):
    made = as_class_counts(counts)
    assert made.instances.tolist() == made.images.tolist() == [28, 9]
    assert made.num_images == 37


@pytest.mark.parametrize(
    "counts", ["ab", {"a": 1}, [[1, 2], [3]], [[1, 2], [3, 4]], 4, [1, -1], [1, float("nan")], [1, float("inf")], ["a"]]
)
def test_as_class_counts__refuses_what_is_no_number_of_boxes(counts):
    with pytest.raises(UsageError, match="class_counts must be the number of boxes of each class, at least 0, not"):
        as_class_counts(counts)


def test_as_class_counts__refuses_shares():
    with pytest.raises(UsageError, match=r"number of boxes of each class, not shares of them: \[0.6, 0.3, 0.1\]"):
        as_class_counts([0.6, 0.3, 0.1])
    assert as_class_counts([0.0, 1.0, 2.5]).instances.tolist() == [0.0, 1.0, 2.5]  # a mean over folds is a count
