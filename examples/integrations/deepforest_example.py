"""Train DeepForest with another loss on its sample tile of tree crowns.

python deepforest_example.py train FOLDER     trains, checks, and writes a checkpoint and its predictions
python deepforest_example.py load FOLDER      loads them without lit_dense installed

DeepForest's own network starts from weights that it downloads. This script uses a smaller network from random weights,
so it needs no download: MobileNetV2 with a feature pyramid. --weights=IMAGENET1K_V1 uses torchvision's weights.
"""

import argparse
import importlib.util
import logging
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from deepforest import get_data
from deepforest.main import deepforest
from torch import nn
from torchvision.models import mobilenet_v2
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops import FrozenBatchNorm2d

TREES, SPECIES = "testfile_deepforest.csv", "testfile_multi.csv"


def network(classes: int, weights: str | None = None) -> RetinaNet:
    norm = FrozenBatchNorm2d if weights else nn.BatchNorm2d
    body = mobilenet_v2(weights=weights, norm_layer=norm).features
    backbone = BackboneWithFPN(body, {"6": "0", "13": "1", "18": "2"}, [32, 96, 1280], out_channels=64)
    anchors = AnchorGenerator(tuple((s, s * 1.26, s * 1.59) for s in (16, 32, 64, 128)), ((0.5, 1.0, 2.0),) * 4)
    sizes = {"min_size": 400, "max_size": 400}
    thresholds = {"score_thresh": 0.1, "nms_thresh": 0.05}  # DeepForest's own
    return RetinaNet(backbone, classes, anchor_generator=anchors, **sizes, **thresholds)


def make(csv: str, labels: dict[str, int], epochs: int = 1, weights: str | None = None) -> deepforest:
    pl.seed_everything(0, verbose=False)
    m = deepforest(
        model=network(len(labels), weights),
        config_args={"num_classes": len(labels), "label_dict": labels, "accelerator": "cpu"},
    )
    m.set_labels(labels)
    for part in (m.config.train, m.config.validation):
        part.csv_file, part.root_dir = get_data(csv), str(Path(get_data(csv)).parent)
    m.config.train.epochs, m.config.train.lr = epochs, 0.02
    m.config.validation.val_accuracy_interval = 1
    m.config.validation.lr_plateau_target = "train_loss"
    return m


def fit_and_evaluate(m: deepforest, name: str, callbacks: list[Any], **fit: Any) -> None:
    m.create_trainer(
        callbacks=callbacks,
        check_val_every_n_epoch=max(1, m.config.train.epochs // 2),
        num_sanity_val_steps=0,
        gradient_clip_val=5.0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    m.trainer.fit(m, **fit)
    trained = m.trainer.callback_metrics
    report = {k: trained[f"train_{k}_epoch"] for k in ("classification", "bbox_regression")}
    evaluated = m.trainer.validate(m, verbose=False)[0]
    report |= {k: evaluated[k] for k in ("box_recall", "box_precision", "map_50")}
    print(f"{name}: " + ", ".join(f"{k} {float(v):.4f}" for k, v in report.items()))


def detections(m: deepforest) -> list[dict[str, torch.Tensor]]:
    m.model.score_thresh = 0.005  # low, so that a short training has detections to compare
    image, _, _ = m.load_dataset(get_data(TREES), str(Path(get_data(TREES)).parent)).dataset[0]
    return m.predict_step([image], 0)


def train(folder: Path, epochs: int, weights: str | None) -> None:
    from checks import StateIsKept, is_stock, same_as_stock

    import lit_dense
    from lit_dense import SwapLoss

    two = make(SPECIES, {"Dead": 0, "Alive": 1})
    images, targets, _ = next(iter(two.train_dataloader()))
    print(f"labels of the batch: {targets[0]['labels'].bincount().tolist()} of Dead (0), Alive (1)")
    same_as_stock(two.model, images, targets)

    trees = {"Tree": 0}
    fit_and_evaluate(make(TREES, trees, epochs, weights), "torchvision's loss", [])

    m, swap = make(TREES, trees, epochs, weights), SwapLoss("ghm")
    watch = StateIsKept(swap)
    fit_and_evaluate(m, 'SwapLoss("ghm")', [swap, watch])
    assert is_stock(m.model), "the model has its own loss again"
    assert watch.validations >= 2
    print(f"validations that kept the histogram: {watch.validations}; steps: {int(swap.criterion.loss.steps)}")
    m.save_model(folder / "trees.ckpt")
    torch.save(detections(m), folder / "trees.pt")

    saved = torch.load(folder / "trees.ckpt", weights_only=True)["callbacks"]["SwapLoss"]
    again, swap = make(TREES, trees, epochs + 2, weights), SwapLoss("ghm")
    fit_and_evaluate(
        again, "resumed, two more epochs", [swap, StateIsKept(swap, saved)], ckpt_path=folder / "trees.ckpt"
    )
    assert swap.criterion.loss.steps == saved["criterion"]["loss.steps"] + 2

    m = make(TREES, trees, epochs, weights)
    criterion = lit_dense.patch(m.model, loss="ghm")
    fit_and_evaluate(m, 'patch(m.model, loss="ghm")', [])
    before = deepcopy(criterion.state_dict())
    m.trainer.validate(m, verbose=False)
    torch.testing.assert_close(criterion.state_dict(), before, rtol=0, atol=0)
    lit_dense.unpatch(m.model)
    assert is_stock(m.model)


def load(folder: Path, weights: str | None) -> None:
    assert importlib.util.find_spec("lit_dense") is None, "uninstall lit-dense first"
    m = deepforest.load_from_checkpoint(
        folder / "trees.ckpt", model=network(1, weights), config_args={"validation": {"csv_file": None}}
    )
    torch.testing.assert_close(detections(m), torch.load(folder / "trees.pt"), rtol=0, atol=0)
    print(f"loaded without lit_dense: the same {len(detections(m)[0]['boxes'])} boxes")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["train", "load"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--weights")
    args = parser.parse_args()
    logging.disable(logging.INFO)  # hides the lines that Lightning prints at every start
    train(args.folder, args.epochs, args.weights) if args.verb == "train" else load(args.folder, args.weights)
