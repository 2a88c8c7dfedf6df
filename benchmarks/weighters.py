"""What each weighter adds to the loss part of a training step, beside focal loss.

    python benchmarks/weighters.py --anchors 160000 --objects 300 --classes 80

Forward and backward to logits and deltas, criterion with focal loss and L1, with and without each weighter, in turns
in one process and one thread. What a weighter adds is the difference of paired times, over what focal loss takes.
Positives are ten of each object; for dw they are all anchors inside an object, as it matches them.
"""

import argparse
import math
import statistics
import time

import torch
from measuring import as_in_training, machine, report, spread
from torchvision.models.detection._utils import BoxCoder

from lit_dense.assigners import AssignInput
from lit_dense.assigners.inside_assigner import InsideAssigner
from lit_dense.box_losses import BoxLoss
from lit_dense.core.class_counts import ClassCounts
from lit_dense.core.distributed import Reduce
from lit_dense.core.geometry import Geometry
from lit_dense.core.samples import DenseSamples, StepContext
from lit_dense.criterion import Criterion

WEIGHTERS = {
    "none": [],
    "ohem": ["ohem"],
    "pisa": ["pisa"],
    "pisa, negatives": [{"class_path": "pisa", "init_args": {"negatives": True}}],
    "cleanliness": [{"class_path": "cleanliness", "init_args": {"candidates": 0}}],  # assignment is the matcher's cost
    "swn": ["swn"],
    "swn, anchor": [{"class_path": "swn", "init_args": {"classification": "anchor"}}],
    "iou_balanced": ["iou_balanced"],
    "harmonic": ["harmonic"],
    "soft_background": ["soft_background"],
    "dw": ["dw"],
    "class_balanced": ["class_balanced"],
    "target_weights": ["target_weights"],
}


class Batch:
    """Images whose objects have as many positives as a RetinaNet gives them."""

    def __init__(self, images: int, anchors: int, classes: int, objects: int, of_each: int = 10) -> None:
        generator = torch.Generator().manual_seed(0)
        self.logits = torch.randn(images * anchors, classes, generator=generator) - 4
        low = torch.rand(images * objects, 2, generator=generator) * 700
        self.gt_boxes = torch.cat([low, low + 30 + torch.rand(images * objects, 2, generator=generator) * 100], 1)
        matched = torch.full((images, anchors), -1)
        for image in range(images):
            own = torch.arange(objects).repeat_interleave(of_each) + image * objects
            matched[image, torch.randperm(anchors, generator=generator)[: len(own)]] = own
        self.matched = matched.flatten()
        self.anchors = torch.rand(images * anchors, 2, generator=generator).mul(700).repeat(1, 2)
        self.anchors[:, 2:] += 50
        near = self.gt_boxes[self.matched[self.matched >= 0]]
        self.anchors[self.matched >= 0] = near + torch.randn(near.shape, generator=generator) * 4
        for rows in torch.arange(images * anchors).view(
            images, anchors
        ):  # in strips, so that neighbours are neighbours
            x, y = self.anchors[rows, :2].unbind(1)
            order = rows[(y.div(25).floor() * 10_000 + x).argsort()]
            self.anchors[rows], self.matched[rows] = self.anchors[order], self.matched[order]
        rows = max(rows for rows in range(1, math.isqrt(anchors) + 1) if anchors % rows == 0)
        self.geometry = Geometry([(rows, anchors // rows)], [(800, 800)] * images)
        self.images, self.objects = images, objects
        self.gt_labels = torch.randint(classes, (images * objects,), generator=generator)

    def match_inside(self) -> torch.Tensor:
        """Match all anchors inside objects."""
        each = zip(self.anchors.chunk(self.images), self.gt_boxes.chunk(self.images), strict=True)
        matched = [InsideAssigner()(AssignInput(anchors, gt_boxes)) for anchors, gt_boxes in each]
        return torch.cat([m.where(m < 0, m + image * self.objects) for image, m in enumerate(matched)])

    def samples(
        self,
        reduce: Reduce | None = None,
        extra_logits: int = 0,
        box_loss: BoxLoss | None = None,
        matched: torch.Tensor | None = None,
    ) -> DenseSamples:
        """Samples with nothing derived yet, of one process by default.

        Args:
            reduce: Sums over processes.
            extra_logits: Number of extra columns.
            box_loss: The box loss whose outputs the samples have.
            matched: Other matches than those of IoU [A].
        """
        outputs, coder = (4, None) if box_loss is None else (box_loss.box_outputs, box_loss.box_coder)
        logits = torch.nn.functional.pad(self.logits, (0, extra_logits))
        return DenseSamples(
            logits=logits.detach().requires_grad_(),
            deltas=torch.zeros(len(self.logits), outputs, requires_grad=True),
            anchors=self.anchors,
            matched_idxs=self.matched if matched is None else matched,
            gt_boxes=self.gt_boxes,
            gt_labels=self.gt_labels,
            gt_image_idxs=torch.arange(self.images).repeat_interleave(self.objects),
            num_images=self.images,
            image_idxs=torch.arange(self.images).repeat_interleave(len(self.logits) // self.images),
            box_coder=coder or BoxCoder((1.0, 1.0, 1.0, 1.0)),
            geometry=self.geometry,
            context=StepContext(reduce or Reduce(enabled=False)),
            extra_logits=extra_logits,
            target_fields={"weight": torch.ones(len(self.gt_labels))},
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--anchors", type=int, default=160000, help="of each image")
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--objects", type=int, default=300, help="of each image")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    as_in_training()
    batch = Batch(options.images, options.anchors, options.classes, options.objects)
    counts = ClassCounts(torch.arange(options.classes) + 1, torch.arange(options.classes) + 1, options.classes * 100)
    criteria = {name: Criterion(weighters=parts, class_counts=counts) for name, parts in WEIGHTERS.items()}
    times: dict[str, list[float]] = {name: [] for name in WEIGHTERS}
    times["focal"] = []
    inside = batch.match_inside()
    for turn in range(options.rounds + 1):
        for name, criterion in criteria.items():
            samples = batch.samples(matched=inside if name == "dw" else None)
            start = time.process_time()
            torch.stack(list(criterion(samples).values())).sum().backward()
            taken = time.process_time() - start
            if turn:
                times[name].append(taken)
        samples = batch.samples()
        start = time.process_time()
        criteria["none"].loss(samples.logits, samples.labels, samples).sum().backward()
        if turn:
            times["focal"].append(time.process_time() - start)
    print(machine())
    print(
        f"{options.images} x {options.anchors:,} anchors x {options.classes} classes, {options.objects} objects an "
        f"image; focal loss {1000 * statistics.median(times['focal']):.0f} ms\n"
    )
    print("| weighter | adds, ms | over focal loss |")
    print("|---|---|---|")
    for name in list(WEIGHTERS)[1:]:
        added = [a - b for a, b in zip(times[name], times["none"], strict=True)]
        shares = [a / b for a, b in zip(added, times["focal"], strict=True)]
        print(f"| {name} | {1000 * statistics.median(added):.0f} | {spread(shares)} |")
        report(f"{name} with focal and l1", "focal and l1 alone", times[name], times["none"])


if __name__ == "__main__":
    main()
