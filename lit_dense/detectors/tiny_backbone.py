"""A small backbone for the demo and for tests, which trains from scratch on a CPU in minutes."""

from collections import OrderedDict

from torch import nn
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.resnet import BasicBlock


def tiny_backbone(out_channels: int = 64) -> BackboneWithFPN:
    """Build a convolutional network of half a million parameters with a pyramid, for objects of 10 to 60 pixels.

    Group norm normalises each image separately, so the features of an image do not depend on its batch. The gradient of
    several processes therefore equals that of one process.

    Args:
        out_channels: Number of channels of each level, a multiple of 8.

    Returns:
        A backbone for torchvision's ``RetinaNet``: images [N, 3, H, W] to levels "0", "1" and "pool",
        [N, out_channels, H / s, W / s] for strides s of 8, 16 and 32, rounded up.

    Example:
        >>> import torch
        >>> {name: tuple(level.shape) for name, level in tiny_backbone()(torch.zeros(1, 3, 128, 96)).items()}
        {'0': (1, 64, 16, 12), '1': (1, 64, 8, 6), 'pool': (1, 64, 4, 3)}
    """
    body = nn.Sequential(
        OrderedDict(
            stem=nn.Sequential(nn.Conv2d(3, 24, 3, 2, 1, bias=False), _group_norm(24), nn.ReLU(inplace=True)),
            layer1=_stage(24, 32, 1),
            layer2=_stage(32, 64, 2),
            layer3=_stage(64, 96, 1),
        )
    )
    return BackboneWithFPN(body, {"layer2": "0", "layer3": "1"}, [64, 96], out_channels, norm_layer=_group_norm)


def _stage(in_channels: int, channels: int, num_blocks: int) -> nn.Sequential:
    """Build residual blocks; the first one halves the resolution."""
    shortcut = nn.Sequential(nn.Conv2d(in_channels, channels, 1, 2, bias=False), _group_norm(channels))
    first = BasicBlock(in_channels, channels, 2, shortcut, norm_layer=_group_norm)
    rest = [BasicBlock(channels, channels, norm_layer=_group_norm) for _ in range(num_blocks - 1)]
    return nn.Sequential(first, *rest)


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(8, channels)
