import torch

from lit_dense import ClassCounts


def test_counts_follow_the_columns_of_a_head():
    counts = ClassCounts(torch.tensor([5, 7, 9]), torch.tensor([3, 4, 6]), num_images=10, num_annotated=8)
    moved = counts.in_columns((2, -1, 0), 4)
    assert moved.instances.tolist() == [9, 0, 5, 0]
    assert moved.images.tolist() == [6, 0, 3, 0]
    assert (moved.num_images, moved.num_annotated) == (10, 8)
