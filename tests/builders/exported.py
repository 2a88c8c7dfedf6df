"""Small detectors for tests of export."""

import torch

from lit_dense import LitDetector

DETECTORS = ("retinanet", "fcos", "ssd")


def small_module(detector="retinanet", size=96, **arguments):
    """A module whose scores vary over images and anchors."""
    torch.manual_seed(0)
    options = {"score_thresh": 0.02, **({} if detector.startswith("ssd") else {"fpn_channels": 32}), **arguments}
    module = LitDetector(
        detector,
        num_classes=3,
        backbone="tiny",
        min_size=size,
        max_size=size,
        **options,
    ).eval()
    for parameter in module.model.head.parameters():
        parameter.data += torch.randn_like(parameter) * 0.02
    module.categories = [{"id": number, "name": name} for number, name in enumerate(("cat", "dog", "cow"))]
    return module


def random_images(number, size):
    """Images of noise, uint8 [N, 3, H, W]."""
    return torch.randint(0, 256, (number, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
