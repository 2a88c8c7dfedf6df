"""Train torchgeo's ObjectDetectionTask with another loss on synthetic roofs and pools.

python torchgeo_example.py train FOLDER     trains, checks, and writes a checkpoint and its predictions
python torchgeo_example.py load FOLDER      loads them without lit_dense installed

--model=retinanet, fcos or faster-rcnn is torchgeo's own argument.

ShapesDataModule also serves torchgeo's command line: see torchgeo.sh.
"""

import argparse
import importlib.util
import logging
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from torch import Tensor
from torchgeo.datamodules import NonGeoDataModule
from torchgeo.datamodules.utils import collate_fn_detection
from torchgeo.datasets import NonGeoDataset
from torchgeo.trainers import ObjectDetectionTask

COLORS = {1: (230.0, 90.0, 60.0), 2: (60.0, 120.0, 230.0)}  # roofs and pools: torchgeo keeps 0 for the background


class Shapes(NonGeoDataset):
    """Grey images of 64 pixels: each has one roof, and every fourth also a pool."""

    def __init__(self, split: str = "train", images: int = 32) -> None:
        self.first, self.images = {"train": 0, "val": 10_000, "test": 20_000}[split], images

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        draw = torch.Generator().manual_seed(self.first + index)
        image = 100 + 20 * torch.randn(3, 64, 64, generator=draw)
        labels = [1, 2] if index % 4 == 0 else [1]
        boxes = []
        for half, label in enumerate(labels):  # one in the left half, one in the right: they never overlap
            w, h = torch.randint(12, 28, (2,), generator=draw).tolist()
            x = half * 32 + int(torch.randint(0, 32 - w, (), generator=draw))
            y = int(torch.randint(0, 64 - h, (), generator=draw))
            image[:, y : y + h, x : x + w] = torch.tensor(COLORS[label])[:, None, None]
            boxes.append([x, y, x + w, y + h])
        return {"image": image, "bbox_xyxy": torch.tensor(boxes, dtype=torch.float), "label": torch.tensor(labels)}


class ShapesDataModule(NonGeoDataModule):
    """Data module of roofs and pools, drawn on access."""

    def __init__(self, batch_size: int = 4, num_workers: int = 0, images: int = 32) -> None:
        super().__init__(Shapes, batch_size, num_workers, images=images)
        self.collate_fn = collate_fn_detection


def make(model: str = "retinanet") -> ObjectDetectionTask:
    seed_everything(0, verbose=False)
    return ObjectDetectionTask(
        model=model, backbone="resnet18", weights=None, num_classes=3, trainable_layers=5, lr=3e-4
    )


def fit_and_evaluate(
    task: ObjectDetectionTask, name: str, callbacks: list[Callback], epochs: int, images: int, **fit: Any
) -> Trainer:
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(task, ShapesDataModule(images=images), **fit)
    terms = [k for k in trainer.callback_metrics if "map" not in k and "mar" not in k and not k.startswith("val")]
    report = {k: trainer.callback_metrics[k] for k in terms}
    evaluated = trainer.validate(task, ShapesDataModule(images=images), verbose=False)[0]
    report |= {k: evaluated[k] for k in ("val_map", "val_map_50")}
    print(f"{name}: " + ", ".join(f"{k} {float(v):.4f}" for k, v in report.items()))
    return trainer


def detections(task: ObjectDetectionTask) -> list[dict[str, Tensor]]:
    task.eval()
    with torch.no_grad():
        return task(torch.stack([Shapes("test")[i]["image"] for i in range(4)]) / 255)


def train(folder: Path, model: str, epochs: int, images: int) -> None:
    from checks import StateIsKept, is_stock, same_as_stock

    import lit_dense
    from lit_dense import SwapLoss

    task = make(model)
    samples = [Shapes()[i] for i in range(4)]
    targets = [{"boxes": s["bbox_xyxy"], "labels": s["label"]} for s in samples]
    print(f"labels of the batch: {torch.cat([t['labels'] for t in targets]).bincount().tolist()} of 0, 1, 2")
    same_as_stock(task.model, torch.stack([s["image"] for s in samples]) / 255, targets)

    fit_and_evaluate(task, "torchvision's loss", [], epochs, images)

    task, swap = make(model), SwapLoss("ghm")
    watch = StateIsKept(swap)
    trainer = fit_and_evaluate(task, 'SwapLoss("ghm")', [swap, watch], epochs, images)
    assert is_stock(task.model), "the model has its own loss again"
    assert watch.validations == epochs + 1
    print(f"validations that kept the histogram: {watch.validations}; steps: {int(swap.criterion.loss.steps)}")
    trainer.save_checkpoint(folder / "shapes.ckpt")
    torch.save(detections(task), folder / "shapes.pt")  # by torchvision's inference, without lit_dense

    saved = torch.load(folder / "shapes.ckpt", weights_only=True)["callbacks"]["SwapLoss"]
    swap = SwapLoss("ghm")
    watch = StateIsKept(swap, saved)
    fit_and_evaluate(
        make(model), "resumed, one more epoch", [swap, watch], epochs + 1, images, ckpt_path=folder / "shapes.ckpt"
    )
    assert swap.criterion.loss.steps == saved["criterion"]["loss.steps"] * (epochs + 1) / epochs

    class GHMDetection(ObjectDetectionTask):
        def configure_losses(self) -> None:
            lit_dense.patch(self.model, loss="ghm")

    seed_everything(0, verbose=False)
    task = GHMDetection(**make(model).hparams)
    fit_and_evaluate(task, "a task that patches its model in configure_losses", [], 1, images)


def load(folder: Path) -> None:
    assert importlib.util.find_spec("lit_dense") is None, "uninstall lit-dense first"
    task = ObjectDetectionTask.load_from_checkpoint(folder / "shapes.ckpt")
    torch.testing.assert_close(detections(task), torch.load(folder / "shapes.pt"), rtol=0, atol=0)
    print(f"loaded without lit_dense: the same {sum(len(d['boxes']) for d in detections(task))} boxes in four images")
    for path in sorted(folder.glob("**/*.ckpt")):
        ObjectDetectionTask.load_from_checkpoint(path)
        print(f"loaded without lit_dense: {path.name}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["train", "load"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", choices=["retinanet", "fcos", "faster-rcnn"], default="retinanet")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--images", type=int, default=32)
    args = parser.parse_args()
    logging.disable(logging.INFO)  # hides the lines that Lightning prints at every start
    train(args.folder, args.model, args.epochs, args.images) if args.verb == "train" else load(args.folder)
