"""Asking a trainer for ``log_dir`` is a collective: callbacks must ask on every process."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lit_dense.callbacks import DetectionPlots, PredictionWriter
from tests.builders.trainers import CollectiveTrainer


def _run(rank, folder):
    trainer = CollectiveTrainer(folder, rank)
    module = SimpleNamespace(categories=[{"id": 5, "name": "a"}])
    found = {"boxes": torch.tensor([[1.0, 2, 30, 40]]), "labels": torch.tensor([0]), "scores": torch.tensor([0.9])}
    batch = ([torch.rand(3, 64, 64)], [{**found, "image_id": rank + 1}])
    pictures, writer = DetectionPlots(), PredictionWriter(pictures=True)
    pictures.on_validation_epoch_start(trainer, module)
    pictures.on_validation_batch_end(trainer, module, {"detections": [found]}, batch, 0)
    pictures.on_validation_epoch_end(trainer, module)
    writer.on_predict_start(trainer, module)
    for image_id in range(1, 2 + rank):  # unequal numbers of batches
        writer.write_on_batch_end(trainer, module, [{**found, "image_id": image_id}], None, batch, 0, 0)
    writer.on_predict_end(trainer, module)
    return sorted(p.name for p in Path(folder).iterdir())


@pytest.mark.ddp
def test_plots__two_processes_write_plots_and_predictions_of_both(two_processes, tmp_path):
    two_processes(_run, str(tmp_path))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["detections.png", "predictions", "predictions.json"]
    assert len((tmp_path / "predictions.json").read_text().split('"image_id"')) == 1 + 2
