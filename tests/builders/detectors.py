"""Small detectors and batches that the tests share."""

import copy
from collections import OrderedDict
from functools import partial

import torch
from torch import nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.fcos import FCOSHead
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.ssd import SSD, SSDHead
from torchvision.models.detection.ssdlite import SSDLiteHead
from torchvision.ops import MultiScaleRoIAlign

from lit_dense.core.class_counts import ClassCounts

NUM_CLASSES = 4
COUNTS = ClassCounts(torch.tensor([900, 90, 9, 0]), torch.tensor([400, 80, 1, 0]), num_images=1000)


class TwoLevels(nn.Module):
    """A backbone of two strided convolutions."""

    def __init__(self, out_channels=8):
        super().__init__()
        self.out_channels = out_channels
        self.first = nn.Conv2d(3, out_channels, 3, stride=8, padding=1)
        self.second = nn.Conv2d(out_channels, out_channels, 3, stride=2, padding=1)

    def forward(self, x):
        first = self.first(x).relu()
        return OrderedDict([("a", first), ("b", self.second(first))])


def small_retinanet(num_classes=NUM_CLASSES, box_loss="l1", seed=0):
    """torchvision's RetinaNet, small and equal for equal seeds, on 64-pixel images that are not resized."""
    torch.manual_seed(seed)
    anchors = AnchorGenerator(((12, 20), (28, 40)), ((0.5, 1.0),) * 2)
    head = RetinaNetHead(8, 4, num_classes)
    head.regression_head._loss_type = box_loss
    nn.init.normal_(head.classification_head.cls_logits.weight, std=0.5)
    nn.init.normal_(head.regression_head.bbox_reg.weight, std=0.5)
    return RetinaNet(TwoLevels(), num_classes, min_size=64, max_size=64, anchor_generator=anchors, head=head)


def small_faster_rcnn(kind=FasterRCNN, drawn=(64, 32), proposals=20, seed=0, **arguments):
    """torchvision's Faster R-CNN, or what is built on it, small and equal for equal seeds, on 64-pixel images.

    ``drawn`` are the anchors and proposals of an image that are drawn for training; few ``proposals`` make images have
    different numbers of them.
    """
    torch.manual_seed(seed)
    model = kind(
        TwoLevels(),
        NUM_CLASSES + 1,
        **{
            "min_size": 64,
            "max_size": 64,
            "rpn_anchor_generator": AnchorGenerator(((12, 20), (28, 40)), ((0.5, 1.0),) * 2),
            "rpn_batch_size_per_image": drawn[0],
            "rpn_post_nms_top_n_train": proposals,
            "box_roi_pool": MultiScaleRoIAlign(["a", "b"], 5, 2),
            "box_batch_size_per_image": drawn[1],
            "box_score_thresh": 0.01,
            "box_detections_per_img": 20,
            **arguments,
        },
    )
    model.roi_heads.box_head = TwoMLPHead(8 * 5 * 5, 16)
    model.roi_heads.box_predictor = FastRCNNPredictor(16, NUM_CLASSES + 1)
    nn.init.normal_(model.rpn.head.cls_logits.weight, std=0.3)
    nn.init.normal_(model.roi_heads.box_predictor.cls_score.weight, std=0.5)
    return model


def small_fcos(num_classes=NUM_CLASSES, seed=0):
    """torchvision's FCOS, small and equal for equal seeds, on 64-pixel images that are not resized."""
    torch.manual_seed(seed)
    anchors = AnchorGenerator(((8,), (16,)), ((1.0,),) * 2)
    head = FCOSHead(32, 1, num_classes, num_convs=1)  # GroupNorm has 32 groups
    for layer in (
        head.classification_head.cls_logits,
        head.regression_head.bbox_reg,
        head.regression_head.bbox_ctrness,
    ):
        nn.init.normal_(layer.weight, std=0.3)
    return FCOS(TwoLevels(32), num_classes, min_size=64, max_size=64, anchor_generator=anchors, head=head)


def small_ssd(num_classes=NUM_CLASSES, seed=0, head=SSDHead):
    """torchvision's SSD, small and equal for equal seeds; its levels have different numbers of anchors a cell."""
    torch.manual_seed(seed)
    boxes = DefaultBoxGenerator([[2], [2, 3]], scales=[0.15, 0.4, 0.8], steps=[8, 16])
    made = head([8, 8], boxes.num_anchors_per_location(), num_classes + 1)
    return SSD(TwoLevels(), boxes, (64, 64), num_classes + 1, head=made)


def small_ssdlite(num_classes=NUM_CLASSES, seed=0):
    """torchvision's SSD with the head of its SSDlite, small and equal for equal seeds."""
    return small_ssd(num_classes, seed, partial(SSDLiteHead, norm_layer=nn.BatchNorm2d))


def random_batch(counts=(2, 0, 5), num_classes=NUM_CLASSES, seed=1, size=64, first_label=0):
    """Images and targets with so many objects each."""
    generator = torch.Generator().manual_seed(seed)
    images, targets = [], []
    for index, count in enumerate(counts):
        images.append(torch.rand(3, size, size, generator=generator))
        low = torch.rand(count, 2, generator=generator) * size * 0.6
        high = low + 8 + torch.rand(count, 2, generator=generator) * size * 0.3
        targets.append(
            {
                "boxes": torch.cat([low, high.clamp(max=size)], 1),
                "labels": torch.randint(num_classes, (count,), generator=generator) + first_label,
                "image_id": index + 1,
            }
        )
    return images, targets


def gradients(module):
    """All gradients of a module, end to end."""
    return torch.cat([p.grad.flatten() if p.grad is not None else torch.zeros(p.numel()) for p in module.parameters()])


def padded_batch():
    """Two images, of which the second is half as wide and is padded."""
    images, targets = random_batch((1, 2))
    images[1] = images[1][:, :, :32]
    targets[1]["boxes"][:, 0::2] = targets[1]["boxes"][:, 0::2] / 4
    targets[1]["boxes"][:, 2] += 4
    return images, targets


def terms_and_gradients(model, batch):
    """Terms and gradients of a training step."""
    model.zero_grad()
    terms = model.train()(*copy.deepcopy(batch))
    sum(terms.values()).backward()
    return {name: term.detach() for name, term in terms.items()}, gradients(model)


class Boxes(nn.Module):
    """Detections as tracing wants them, a tuple of tensors."""

    def __init__(self, detector):
        super().__init__()
        self.detector = detector

    def forward(self, image):
        return tuple(self.detector([image])[0].values())
