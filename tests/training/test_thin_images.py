"""Images that are too thin, in the steps and hooks of LitRetinaNet."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lit_dense import LitRetinaNet
from lit_dense.core.errors import UsageError
from lit_dense.data import CocoData

NETWORK = {"backbone": "tiny", "fpn_channels": 16, "min_size": 64, "max_size": 64}


def test_lit_retinanet__every_step_names_an_image_that_is_too_thin():
    module = LitRetinaNet(2, **NETWORK)
    module._make_metrics()
    target = {
        "boxes": torch.zeros(0, 4),
        "labels": torch.zeros(0, dtype=torch.int64),
        "image_id": 3,
        "file_name": "a.png",
    }
    batch = [torch.zeros(3, 1, 65)], [target]
    for step in (module.training_step, module.validation_step, module.test_step, module.predict_step):
        with pytest.raises(UsageError, match=r"^Image 3 \(a\.png\) is 65 x 1 pixels"):
            step(batch, 0)


def test_lit_retinanet__an_image_that_is_too_thin_is_named_before_the_first_batch():
    module = LitRetinaNet(2, **NETWORK)
    thin = CocoData.without_boxes(["a.png", "b.png"], np.array([[30, 40], [65, 1]]))
    for stage in ("fit", "validate", "test", "predict"):
        batches = {"num_val_batches": [1], "num_test_batches": [1], "precision": "32-true", "callbacks": []}
        module._trainer = SimpleNamespace(datamodule=SimpleNamespace(data={"train": thin}), **batches)
        module.setup(stage)
        start = {"fit": module.on_fit_start, "validate": module.on_validation_start, "test": module.on_test_start}
        with pytest.raises(UsageError, match=r"^Image 2 \(b\.png\) is 1 x 65 pixels"):
            start.get(stage, module.on_predict_start)()
