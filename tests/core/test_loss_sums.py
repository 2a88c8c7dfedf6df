import torch

from lit_dense.core.loss_sums import image_scales, weighted_total


def test_weighted_total__is_the_same_where_the_images_of_losses_are_known_in_order():
    values, weights = torch.rand(12, dtype=torch.float64), [None, torch.rand(12, dtype=torch.float64)]
    scales = torch.tensor([0.5, 2.0, 1.0])
    for counts in ([4, 4, 4], [2, 7, 3], None):
        images = torch.arange(3).repeat_interleave(torch.tensor(counts or [4, 4, 4]))
        expected = (values * weights[1] * scales.double()[images]).sum()
        torch.testing.assert_close(weighted_total(values, weights, scales, images, counts), expected)


def test_weighted_total__further_rows_do_not_count():
    total = weighted_total(torch.ones(2), [torch.tensor([1.0, 2, 9])], torch.tensor([1.0, 3]), torch.tensor([0, 1, 1]))
    assert total == 7


def test_image_scales__with_and_without_a_normalizer():
    inverse = torch.tensor([0.5, 0.25])
    assert image_scales(inverse, 2, 3.0, unnormalized=False).tolist() == [1.5, 0.75]
    assert image_scales(inverse, 2, 1.0, unnormalized=False) is inverse
    assert image_scales(inverse, 2, 3.0, unnormalized=True).tolist() == [6, 6]
