"""A faster way to join the outputs of a RetinaNet tower over all pyramid levels."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torchvision.models.detection.retinanet import RetinaNetClassificationHead, RetinaNetRegressionHead

CHUNK_CELLS = 512
"""Number of cells of one matrix product: a small result, in rows of equal length, which a CPU reads quickly."""


def tower_outputs(tower: Any, features: Sequence[Tensor]) -> Tensor:
    """Compute ``tower(features)`` with fewer copies [N, anchors of an image, columns].

    torchvision permutes and copies each level, and then copies all levels again to join them. A tower that is not
    torchvision's, or that has hooks, is called as it is.

    Args:
        tower: The classification or the regression head.
        features: Features of each level [N, channels, H, W].
    """
    if not _is_stock(tower):
        return torch.as_tensor(tower(features))
    classifies = isinstance(tower, RetinaNetClassificationHead)
    last, columns = (tower.cls_logits, tower.num_classes) if classifies else (tower.bbox_reg, 4)
    inputs = [tower.conv(level) for level in features]
    if _is_faster_as_product(last, inputs):
        flat: Tensor = _Multiplied.apply(last.weight, last.bias, *inputs)
    else:
        flat = _Joined.apply(*[last(level) for level in inputs])
    return flat.view(len(flat), -1, columns)


def _is_stock(tower: nn.Module) -> bool:
    """Whether a call of the tower runs only torchvision's code."""
    stock = (RetinaNetClassificationHead.forward, RetinaNetRegressionHead.forward)
    return type(tower).forward in stock and "forward" not in vars(tower) and not _has_hooks(tower)


def _has_hooks(module: nn.Module) -> bool:
    return any((module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks))


def _is_faster_as_product(conv: Any, inputs: Sequence[Tensor]) -> bool:
    """Whether a matrix product is faster than a convolution: on a CPU, with many classes.

    The unfolded input is smaller than the output if there are more output channels than numbers in a window.
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
        and not torch.is_autocast_enabled("cpu")  # autocast would use half precision
        and all(t.device.type == "cpu" and t.dtype == torch.float32 for t in (conv.weight, *inputs))
    )


class _Joined(torch.autograd.Function):
    """Join levels [N, channels, H, W] into [N, sum of H W, channels] with one copy in each direction."""

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
    """Write the transposes of ``source`` [N, b, a] into ``to`` [N, a, b]."""
    if to.device.type != "cpu":
        to.copy_(source.transpose(1, 2))
        return
    for rows, columns in zip(to, source, strict=True):  # PyTorch transposes only 2-D tensors block by block
        rows.copy_(columns.t())


def _memory_format(tensor: Tensor) -> torch.memory_format:
    last = tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


class _Multiplied(torch.autograd.Function):
    """Convolve levels [N, inputs, H, W] into [N, sum of H W, outputs], as matrix products over all levels of an image.

    The backward pass reads the gradient in its memory order, and accumulates the gradient of the weight in place.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor, *levels: Tensor) -> Tensor:
        ctx.save_for_backward(weight, *levels)
        flat = weight.new_empty(len(levels[0]), sum(_cells(levels)), len(weight))
        for image, rows in enumerate(flat):
            # a product of each chunk that is then transposed is faster than one that writes rows, and needs less memory
            chunks = zip(rows.split(CHUNK_CELLS), _windows(levels, image).split(CHUNK_CELLS, 1), strict=True)
            for chunk, windows in chunks:
                chunk.copy_(torch.addmm(bias.unsqueeze(1), weight.flatten(1), windows).t())
        return flat

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, *levels = ctx.saved_tensors
        needs_weight, needs_bias, *needs_levels = ctx.needs_input_grad
        weight_grad = torch.zeros_like(weight).flatten(1) if needs_weight else None
        level_grads = [
            torch.empty_like(level) if needed else None for level, needed in zip(levels, needs_levels, strict=True)
        ]
        for image, rows in enumerate(grad):
            if weight_grad is not None:
                weight_grad.addmm_(rows.t(), _windows(levels, image).t())
            if any(needs_levels):
                parts = torch.mm(rows, weight.flatten(1)).split(_cells(levels))
                for level, part in zip(level_grads, parts, strict=True):
                    if level is not None:
                        level[image] = F.fold(part.t(), level.shape[-2:], 3, padding=1)
        if weight_grad is not None:
            weight_grad = weight_grad.view_as(weight)
        return weight_grad, grad.sum((0, 1)) if needs_bias else None, *level_grads


def _cells(levels: Sequence[Tensor]) -> list[int]:
    return [level.shape[-2] * level.shape[-1] for level in levels]


def _windows(levels: Sequence[Tensor], image: int) -> Tensor:
    """Unfold the 3 x 3 windows of a convolution at each cell of all levels of an image [9 inputs, sum of H W]."""
    return torch.cat([F.unfold(level[image], 3, padding=1) for level in levels], 1)
