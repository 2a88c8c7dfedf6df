"""Time of the loss part of each detector, forward and backward: its own loss, and the loss of its adapter.

    python benchmarks/adapters.py

The heads are replaced by tensors of the size that they compute for two images of 800 px (SSD: 300 px), so that only
matching, losses and gradients with respect to the outputs of the head are measured. Each adapter has its default loss,
which is the detector's own. The two take turns in one process and one thread: read the ratios.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from measuring import as_in_training, machine, report, spread
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_iou

from lit_dense import patch

Step = Callable[[], None]
IMAGES, OBJECTS, CHANNELS = 2, 10, 32
STRIDES = (8, 16, 32, 64, 128)


class NoBackbone(nn.Module):
    """A backbone that is never run."""

    def __init__(self, out_channels: int | list[int] = CHANNELS) -> None:
        super().__init__()
        self.out_channels = out_channels


class Given(nn.Module):
    """A head with constant outputs."""

    def __init__(self, outputs: Any) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, *inputs: Any) -> Any:
        """Return the outputs."""
        return self.outputs


class GivenPredictor(FastRCNNPredictor):
    """A box predictor with constant outputs."""

    def __init__(self, logits: Tensor, deltas: Tensor) -> None:
        super().__init__(1, logits.shape[1])
        self.outputs = logits, deltas

    def forward(self, features: Any) -> Any:
        """Return the outputs."""
        return self.outputs


def objects(pixels: int, classes: int, first: int) -> list[dict[str, Tensor]]:
    """Return the targets of the images."""
    generator = torch.Generator().manual_seed(0)
    targets = []
    for _ in range(IMAGES):
        corner = torch.rand(OBJECTS, 2, generator=generator) * 0.5 * pixels
        sides = (torch.rand(OBJECTS, 2, generator=generator) * 0.4 + 0.1) * pixels
        labels = torch.randint(first, classes + first, (OBJECTS,), generator=generator)
        targets.append({"boxes": torch.cat([corner, corner + sides], 1), "labels": labels})
    return targets


def outputs(*shapes: tuple[int, ...], mean: float = -4.0) -> list[Tensor]:
    """Return leaves with random numbers, the first with a mean."""
    torch.manual_seed(0)
    tensors = [torch.empty(shape).normal_(mean if number == 0 else 0.0, 1.0) for number, shape in enumerate(shapes)]
    return [tensor.requires_grad_() for tensor in tensors]


def step_of(loss: Callable[[], dict[str, Tensor]], leaves: list[Tensor]) -> Step:
    """Return a function that computes the loss and its gradient."""

    def step() -> None:
        for leaf in leaves:
            leaf.grad = None
        terms = loss()
        torch.stack(list(terms.values())).sum().backward()

    return step


def image_list(pixels: int) -> ImageList:
    """Return images without content."""
    return ImageList(torch.zeros(IMAGES, 3, pixels, pixels), [(pixels, pixels)] * IMAGES)


def fcos(own: bool) -> Step:
    """FCOS with 80 classes, 13,343 locations per image."""
    sizes, aspects = tuple((stride,) for stride in STRIDES), ((1.0,),) * len(STRIDES)
    model = FCOS(NoBackbone(), 80, AnchorGenerator(sizes, aspects)).train()
    maps = [torch.zeros(IMAGES, CHANNELS, -(-800 // stride), -(-800 // stride)) for stride in STRIDES]
    anchors = model.anchor_generator(image_list(800), maps)
    logits, deltas, center = leaves = outputs(*((IMAGES, len(anchors[0]), n) for n in (80, 4, 1)))
    if own:
        patch(model)
    given = {"cls_logits": logits, "bbox_regression": deltas, "bbox_ctrness": center}
    targets, counts = objects(800, 80, 0), [m.shape[-1] * m.shape[-2] for m in maps]

    def loss() -> dict[str, Tensor]:
        given["bbox_regression"] = deltas.relu()
        terms: dict[str, Tensor] = model.compute_loss(targets, given, anchors, counts)
        return terms

    return step_of(loss, leaves)


def ssd(own: bool) -> Step:
    """SSD300 with 90 classes and background, 8,732 default boxes per image."""
    generator = DefaultBoxGenerator(
        [[2], [2, 3], [2, 3], [2, 3], [2], [2]],
        scales=[0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05],
        steps=[8, 16, 32, 64, 100, 300],
    )
    model = SSD(NoBackbone([CHANNELS] * 6), generator, (300, 300), 91).train()
    maps = [torch.zeros(IMAGES, CHANNELS, n, n) for n in (38, 19, 10, 5, 3, 1)]
    anchors = generator(image_list(300), maps)
    logits, deltas = leaves = outputs((IMAGES, len(anchors[0]), 91), (IMAGES, len(anchors[0]), 4), mean=0.0)
    if own:
        patch(model)
    given, targets = {"cls_logits": logits, "bbox_regression": deltas}, objects(300, 90, 1)

    def loss() -> dict[str, Tensor]:
        matched = [model.proposal_matcher(box_iou(t["boxes"], a)) for t, a in zip(targets, anchors, strict=True)]
        terms: dict[str, Tensor] = model.compute_loss(targets, given, anchors, matched)
        return terms

    return step_of(loss, leaves)


def faster_rcnn() -> Any:
    """Faster R-CNN with 90 classes and background."""
    sizes, aspects = ((32,), (64,), (128,), (256,), (512,)), ((0.5, 1.0, 2.0),) * 5
    return FasterRCNN(NoBackbone(), 91, rpn_anchor_generator=AnchorGenerator(sizes, aspects)).train()


def rpn(own: bool) -> Step:
    """The region proposal network, 159,882 anchors per image."""
    model = faster_rcnn()
    maps = [torch.zeros(IMAGES, CHANNELS, 800 // stride, 800 // stride) for stride in (4, 8, 16, 32, 64)]
    objectness = outputs(*((IMAGES, 3, *m.shape[-2:]) for m in maps))
    deltas = outputs(*((IMAGES, 12, *m.shape[-2:]) for m in maps), mean=0.0)
    if own:
        patch(model)
    model.rpn.head = Given((objectness, deltas))
    model.rpn.filter_proposals = lambda *_: ([], [])  # the same in both, and not part of the loss
    images, targets = image_list(800), objects(800, 90, 1)
    features = dict(enumerate(maps))
    return step_of(lambda: model.rpn(images, features, targets)[1], [*objectness, *deltas])


def roi(own: bool) -> Step:
    """The RoI heads, 2,000 proposals per image, of which 512 are sampled."""
    model = faster_rcnn()
    heads = model.roi_heads
    logits, deltas = leaves = outputs((IMAGES * 512, 91), (IMAGES * 512, 364), mean=0.0)
    heads.box_roi_pool, heads.box_head = Given(None), Given(None)
    heads.box_predictor = GivenPredictor(logits, deltas)
    if own:
        patch(model)
    targets = objects(800, 90, 1)
    corner = torch.rand(IMAGES, 2000, 2, generator=torch.Generator().manual_seed(0)) * 600
    proposals = list(torch.cat([corner, corner + 150], 2))

    def loss() -> dict[str, Tensor]:
        terms: dict[str, Tensor] = model.roi_heads({}, list(proposals), [(800, 800)] * IMAGES, targets)[1]
        return terms

    return step_of(loss, leaves)


def detr(own: bool) -> Step:
    """The class and box losses of Hugging Face's DETR, 100 queries and 90 classes, matching included."""
    from transformers import DetrConfig, DetrForObjectDetection

    config = DetrConfig(
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        num_labels=90,
    )
    model = DetrForObjectDetection(config).train()
    logits, boxes = leaves = outputs((IMAGES, 100, 91), (IMAGES, 100, 4), mean=0.0)
    if own:
        patch(model)
    targets = [{"class_labels": t["labels"], "boxes": torch.rand(OBJECTS, 4) * 0.4 + 0.1} for t in objects(800, 90, 0)]

    def loss() -> dict[str, Tensor]:
        total = model.loss_function(logits, targets, torch.device("cpu"), boxes.sigmoid(), config)[0]
        return {"loss": total}

    return step_of(loss, leaves)


PARTS: dict[str, Callable[[bool], Step]] = {"fcos": fcos, "ssd": ssd, "rpn": rpn, "roi": roi, "detr": detr}


def seconds(step: Step) -> float:
    """Return the CPU seconds of a step in this process."""
    start = time.process_time()
    step()
    return time.process_time() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    as_in_training()
    print(f"{machine()}\n")
    print("| loss part | the detector's own, ms | with its adapter, ms | less time |")
    print("|---|---|---|---|")
    for name in options.parts:
        if name == "detr" and not find_spec("transformers"):
            continue
        steps = PARTS[name](False), PARTS[name](True)
        times: list[list[float]] = [[], []]
        for turn in range(options.rounds + 1):
            for step, taken in zip(steps, times, strict=True):
                passed = seconds(step)
                if turn:  # the first round warms up
                    taken.append(passed)
        stock, own = times
        cells = [f"{1000 * statistics.median(one):.1f}" for one in times]
        ratio = spread([a / b for a, b in zip(stock, own, strict=True)])
        print(f"| {name} | {cells[0]} | {cells[1]} | {ratio} |", flush=True)
        report(f"loss part of {name}", "the detector's own", own, stock)


if __name__ == "__main__":
    main()
