"""Ignore regions of set predictors: unmatched queries whose box lies in a region are ignored."""

import copy

import pytest
import torch

from lit_dense.detectors import patch
from lit_dense.functional.ignore_regions import in_regions
from tests.builders.detectors import random_batch
from tests.builders.samples import seen_by

predictors = pytest.importorskip("tests.builders.set_predictors")


@pytest.mark.parametrize("name", ["detr", "deformable_detr", "rt_detr"])
def test_ignore_regions__queries_in_them_are_ignored(name):
    found = []
    for region in (None, torch.tensor([[0.5, 0.5, 1.0, 1.0]])):  # the whole image
        torch.manual_seed(0)
        model = getattr(predictors, name)()
        seen = seen_by(patch(model))
        images, targets = random_batch((2, 0, 3), predictors.CLASSES)
        labels = predictors.labels_of(copy.deepcopy(targets))
        if region is not None:
            labels[0]["ignore_boxes"] = region
        output = model(pixel_values=torch.stack(images), labels=labels)
        assert output.loss.isfinite()
        found.append(seen[0])
    plain, ignored = found
    assert torch.equal(plain.positives, ignored.positives)
    changed = plain.matched_idxs != ignored.matched_idxs
    assert changed.any()
    assert (ignored.image_idxs[changed] % 3 == 0).all()
    inside = in_regions(ignored.boxes.detach(), torch.tensor([[0.0, 0, 1024, 1024]])) & (ignored.image_idxs % 3 == 0)
    assert torch.equal(changed, inside & (plain.matched_idxs == -1))
    assert (ignored.matched_idxs[changed] == -2).all()
