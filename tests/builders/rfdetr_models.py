"""RF-DETR's criterion behind a toy network, which predicts queries from an image's mean features."""

import copy

import pytest
import torch

pytest.importorskip("rfdetr")  # the run for doctests imports this file too

from rfdetr.models.criterion import SetCriterion
from rfdetr.models.matcher import HungarianMatcher
from torch import nn

from tests.builders.set_predictor_targets import CLASSES, SIZE, as_fractions

GROUPS, QUERIES, LAYERS = 3, 8, 3


def criterion(losses=("labels", "boxes", "cardinality"), **switches):
    """The package's criterion, with the weights of two decoder layers and the encoder."""
    weights = {"loss_ce": 1.5, "loss_bbox": 5.0, "loss_giou": 2.0}
    weights |= {f"{name}_{layer}": weight for layer in ("0", "enc") for name, weight in list(weights.items())}
    matcher = HungarianMatcher(cost_class=2, cost_bbox=5, cost_giou=2)
    switches = {"ia_bce_loss": True, **switches}
    return SetCriterion(CLASSES, matcher, weights, 0.25, list(losses), group_detr=GROUPS, **switches)


class ToyRFDETR(nn.Module):
    """Model and criterion side by side, as in the package's LightningModule."""

    def __init__(self, **switches):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 8, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten())
        self.heads = nn.ModuleList(nn.Linear(128, GROUPS * QUERIES * (CLASSES + 4)) for _ in range(LAYERS))
        self.criterion = criterion(**switches)

    def forward(self, images):
        layers = []
        for head in self.heads:
            rows = head(self.backbone(images)).view(len(images), GROUPS * QUERIES, CLASSES + 4)
            rows = rows if self.training else rows[:, :QUERIES]
            layers.append({"pred_logits": rows[..., :CLASSES] * 2, "pred_boxes": rows[..., CLASSES:].sigmoid() * 0.8})
        return {**layers[0], "aux_outputs": [layers[1]], "enc_outputs": layers[2]}


def toy():
    return ToyRFDETR()


def focal_toy():
    return ToyRFDETR(ia_bce_loss=False)


def varifocal_toy():
    return ToyRFDETR(ia_bce_loss=False, use_varifocal_loss=True)


def targets_of(targets):
    """Targets as rfdetr takes them."""
    return [{**as_fractions(target), "labels": target["labels"]} for target in targets]


def losses_of(model, images, targets):
    """Terms of a training step: those of classes of all layers, and the rest, weighted as the package does."""
    found = model.criterion(model(torch.stack(images)), targets_of(copy.deepcopy(targets)))
    weights = model.criterion.weight_dict
    weighted = {name: found[name] * weights[name] for name in found if name in weights}
    classes = torch.stack([term for name, term in weighted.items() if name.startswith("loss_ce")]).sum()
    return {"classes": classes, "boxes": torch.stack(list(weighted.values())).sum() - classes}


def detections_of(model, images):
    """All classes of all queries with a score."""
    found = model(torch.stack(images))
    detections = []
    for scores, boxes in zip(found["pred_logits"].sigmoid(), found["pred_boxes"], strict=True):
        query, label = (scores > 0.01).nonzero(as_tuple=True)
        detections.append({"boxes": boxes[query] * SIZE, "scores": scores[query, label], "labels": label})
    return detections
