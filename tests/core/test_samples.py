import pytest
import torch
from torchvision.ops import box_iou

from tests.builders.samples import samples_of


def test_dense_samples__matches_are_unique_in_the_batch():
    samples = samples_of((2, 0, 5))
    assert samples.gt_image_idxs.tolist() == [0, 0, 2, 2, 2, 2, 2]
    assert torch.equal(samples.gt_image_idxs[samples.pos_matched_idxs], samples.image_idxs[samples.positives])
    assert samples.pos_matched_idxs.max() >= 2
    assert torch.equal(samples.labels[samples.positives], samples.pos_labels)
    assert torch.equal(samples.labels[~samples.valid], torch.full(((~samples.valid).sum(),), -2))
    assert samples.pos_per_image.tolist() == samples.pos_image_idxs.bincount(minlength=3).tolist()


def test_dense_samples__ious_of_positives():
    samples = samples_of((3, 2))
    expected = box_iou(samples.pos_boxes, samples.pos_gt_boxes).diagonal()
    torch.testing.assert_close(samples.pos_ious, expected)
    assert not samples.pos_ious.requires_grad
    assert samples.pos_boxes.requires_grad


def test_dense_samples__target_deltas_decode_to_the_ground_truth():
    samples = samples_of((3, 2))
    decoded = samples.box_coder.decode_single(samples.pos_target_deltas, samples.anchors[samples.positives])
    torch.testing.assert_close(decoded, samples.pos_gt_boxes, rtol=1e-4, atol=1e-4)


def test_dense_samples__anchor_ground_truth_ious_are_those_of_the_image():
    samples = samples_of((2, 0, 5))
    assert samples.anchor_gt_iou(0).shape == (2, samples.anchors_per_image)
    assert samples.anchor_gt_iou(1).shape == (0, samples.anchors_per_image)
    best = samples.anchor_gt_iou(2).max(0).values
    labelled = samples.labels.reshape(3, -1)[2]
    assert (labelled[best >= 0.5] >= 0).all()


def test_dense_samples__of_an_empty_batch_are_empty():
    samples = samples_of((0, 0))
    assert samples.pos_ious.shape == (0,)
    assert samples.pos_boxes.shape == (0, 4)
    assert (samples.labels == -1).all()
    assert samples.pos_per_image.tolist() == [0, 0]


def test_dense_samples__unknown_geometry_is_an_error(monkeypatch):
    from dataclasses import replace

    samples = replace(samples_of((1,)), geometry=None)
    with pytest.raises(ValueError, match="does not tell the sizes"):
        samples.level_idxs  # noqa: B018 (reading it is the test)
