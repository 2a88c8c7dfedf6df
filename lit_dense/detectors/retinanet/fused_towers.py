"""The outputs of a RetinaNet tower over all pyramid levels, written in the order of the anchors right away."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torchvision.models.detection.retinanet import RetinaNetClassificationHead, RetinaNetRegressionHead

from ..tracing import records_graph

PIECE = 512
"""Cells of a product: few enough for a small result, and rows of one length, which the processor finds easy to read."""


def tower_outputs(tower: Any, features: Sequence[Tensor]) -> Tensor:
    """What ``tower(features)`` gives, N images by all anchors of an image by columns, with fewer copies.

    torchvision permutes each level, copies it, and copies all of them again to join them. A tower that is not
    torchvision's own, that has hooks, or that is being compiled or traced does that still.

    Args:
        tower: The classification or the regression head.
        features: Of each level [N, channels, H, W].
    """
    if records_graph() or not _is_stock(tower):  # in this order: torch 2.4 cannot compile vars(tower)
        return torch.as_tensor(tower(features))
    classifies = isinstance(tower, RetinaNetClassificationHead)
    last, columns = (tower.cls_logits, tower.num_classes) if classifies else (tower.bbox_reg, 4)
    inputs = [tower.conv(level) for level in features]
    if _pays_to_multiply(last, inputs):
        flat: Tensor = _Multiplied.apply(last.weight, last.bias, *inputs)
    else:
        flat = _Joined.apply(*[last(level) for level in inputs])
    return flat.view(len(flat), -1, columns)


def _is_stock(tower: nn.Module) -> bool:
    """Whether calling the tower does what torchvision wrote and nothing else."""
    ours = (RetinaNetClassificationHead.forward, RetinaNetRegressionHead.forward)
    return type(tower).forward in ours and "forward" not in vars(tower) and not _has_hooks(tower)


def _has_hooks(module: nn.Module) -> bool:
    return any((module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks))


def _pays_to_multiply(conv: Any, inputs: Sequence[Tensor]) -> bool:
    """Whether a convolution is better done as a product of matrices: with many classes, on a processor.

    From as many output channels on as a window has numbers, the unfolded input is smaller than the output.
    """
    return (
        type(conv) is nn.Conv2d
        and not _has_hooks(conv)
        and conv.kernel_size == (3, 3)
        and conv.stride == conv.padding == conv.dilation == (1, 1)
        and conv.padding_mode == "zeros"
        and conv.groups == 1
        and conv.bias is not None
        and conv.out_channels >= conv.weight[0].numel()
        and not torch.is_autocast_enabled("cpu")  # which would have it in half precision
        and all(t.device.type == "cpu" and t.dtype == torch.float32 for t in (conv.weight, *inputs))
    )


class _Joined(torch.autograd.Function):
    """Joins levels [N, channels, H, W] into [N, sum of H W, channels], one copy each way."""

    @staticmethod
    def forward(ctx: Any, *levels: Tensor) -> Tensor:
        ctx.shapes = [level.shape for level in levels]
        ctx.formats = [_memory_format(level) for level in levels]
        cells = _cells(levels)
        flat = levels[0].new_empty(len(levels[0]), sum(cells), levels[0].shape[1])
        for level, part in zip(levels, flat.split(cells, 1), strict=True):
            _copy_transposed(part, level.flatten(2))
        return flat

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        cells = [height * width for _, _, height, width in ctx.shapes]
        levels = []
        for part, shape, memory_format in zip(grad.split(cells, 1), ctx.shapes, ctx.formats, strict=True):
            level = torch.empty(shape, dtype=grad.dtype, device=grad.device, memory_format=memory_format)
            _copy_transposed(level.flatten(2), part)
            levels.append(level)
        return tuple(levels)


def _copy_transposed(to: Tensor, source: Tensor) -> None:
    """Write matrices [N, a, b] that are transposed [N, b, a]."""
    if to.device.type != "cpu":
        to.copy_(source.transpose(1, 2))
        return
    for rows, columns in zip(to, source, strict=True):  # PyTorch goes through two dimensions block by block
        rows.copy_(columns.t())


def _memory_format(tensor: Tensor) -> torch.memory_format:
    last = tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


class _Multiplied(torch.autograd.Function):
    """Convolves levels [N, inputs, H, W] into [N, sum of H W, outputs], all levels of an image in one product.

    The backward pass reads the gradient as it lies, and adds up that of the weight in place.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor, *levels: Tensor) -> Tensor:
        ctx.save_for_backward(weight, *levels)
        flat = weight.new_empty(len(levels[0]), sum(_cells(levels)), len(weight))
        for image, rows in enumerate(flat):
            # piece by piece and then transposed: quicker than a product that writes rows, and little memory
            pieces = zip(rows.split(PIECE), _windows(levels, image).split(PIECE, 1), strict=True)
            for piece, windows in pieces:
                piece.copy_(torch.addmm(bias.unsqueeze(1), weight.flatten(1), windows).t())
        return flat

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, *levels = ctx.saved_tensors
        needs_weight, needs_bias, *needs_levels = ctx.needs_input_grad
        of_matrix = torch.zeros_like(weight).flatten(1) if needs_weight else None
        of_levels = [
            torch.empty_like(level) if needed else None for level, needed in zip(levels, needs_levels, strict=True)
        ]
        for image, rows in enumerate(grad):
            if of_matrix is not None:
                of_matrix.addmm_(rows.t(), _windows(levels, image).t())
            if any(needs_levels):
                parts = torch.mm(rows, weight.flatten(1)).split(_cells(levels))
                for level, part in zip(of_levels, parts, strict=True):
                    if level is not None:
                        level[image] = F.fold(part.t(), level.shape[-2:], 3, padding=1)
        of_weight = None if of_matrix is None else of_matrix.view_as(weight)
        return of_weight, grad.sum((0, 1)) if needs_bias else None, *of_levels


def _cells(levels: Sequence[Tensor]) -> list[int]:
    return [level.shape[-2] * level.shape[-1] for level in levels]


def _windows(levels: Sequence[Tensor], image: int) -> Tensor:
    """What a convolution of three by three sees of an image at each cell of all levels [9 inputs, sum of H W]."""
    return torch.cat([F.unfold(level[image], 3, padding=1) for level in levels], 1)
