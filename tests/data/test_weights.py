"""Weights on their way from annotations to the loss."""

import json

import pytest
import torch

from lit_dense import CocoDataModule
from lit_dense.data import DataError
from tests.builders.coco_files import data_arguments, write_shape_splits
from tests.builders.data_modules import data_module
from tests.builders.lit_modules import SmallRetinaNet
from tests.builders.trainers import trainer_in


@pytest.fixture
def step(tmp_path):
    """Trains one step where object n has the n-th weight, and returns the loss terms and the trained parameters."""
    path = write_shape_splits(tmp_path)
    content = json.loads(path.read_text())

    def run(weights, weighters=("target_weights",), flip=None, **options):
        changed = json.loads(json.dumps(content))
        for entry, weight in zip(changed["annotations"], weights, strict=True):
            entry["hardness"] = weight
        if flip is not None:
            entry = changed["annotations"][flip]
            entry["category_id"] = 10 - entry["category_id"]  # the other of 3 and 7
        path.write_text(json.dumps(changed))
        torch.manual_seed(0)
        module = SmallRetinaNet(2, weighters=list(weighters), lr=1e-2)
        data = CocoDataModule(**data_arguments(tmp_path), transforms=[], **{"weight_key": "hardness"} | options)
        trainer = trainer_in(tmp_path, max_steps=1, limit_val_batches=0)
        trainer.fit(module, data)
        terms = [trainer.callback_metrics[f"train_{name}"] for name in ("classification", "bbox_regression")]
        return torch.stack(terms), torch.cat([p.detach().flatten() for p in module.model.parameters()])

    return run


def test_target_weights__each_object_counts_by_its_weight(step):
    ones, trained = step([1] * 6)
    plain, trained_alike = step([1] * 6, weighters=(), weight_key=None)
    assert torch.equal(ones, plain)
    assert torch.equal(trained, trained_alike)
    background, _ = step([0] * 6)
    assert background[1] == 0
    assert 0 < background[0] < ones[0]
    first, _ = step([1, 0, 0, 0, 0, 0])
    others, _ = step([0, 1, 1, 1, 1, 1])
    torch.testing.assert_close(first + others - background, ones)
    tripled, _ = step([3, 1, 1, 1, 1, 1])
    torch.testing.assert_close(tripled, ones + 2 * (first - background))
    assert (first > background).all()


def test_target_weights__an_object_of_weight_0_is_not_trained_on(step):
    _, trained = step([0, 1, 1, 1, 1, 1])
    _, of_other_class = step([0, 1, 1, 1, 1, 1], flip=0)
    assert torch.equal(trained, of_other_class)
    _, weighted = step([1] * 6)
    _, of_other_class = step([1] * 6, flip=0)
    assert not torch.equal(weighted, of_other_class)


def weigh(folder, name="train", **weights):
    """Gives annotation n the weight n / 2, but those of the given ids (``a3`` for 3) others."""
    content = json.loads((folder / f"{name}.json").read_text())
    for entry in content["annotations"]:
        entry["hard"] = weights.get(f"a{entry['id']}", entry["id"] / 2)
    (folder / f"{name}.json").write_text(json.dumps(content))


@pytest.mark.parametrize("options", [{"val_split": 0.25}, {"val_split": 0, "transforms": []}])
def test_weight_key__batches_have_the_weights_of_their_images(folder, options):
    weigh(folder)
    data = data_module(folder, "train", weight_key="hard", **options)
    data.setup("fit")
    entries = json.loads((folder / "train.json").read_text())["annotations"]
    seen = [target for _, targets in data.train_dataloader() for target in targets]
    assert any(len(target["boxes"]) == 0 for target in seen)
    for target in seen:
        own = [entry["hard"] for entry in entries if entry["image_id"] == target["image_id"]]
        assert target["weight"].tolist() == own
        assert target["weight"].dtype == torch.float32


def test_weight_key__bad_weights_warn_once_and_are_errors_where_strict(folder):
    weigh(folder, a2=-1, a3=None)
    data = data_module(folder, weight_key="hard")
    with pytest.warns(
        UserWarning, match=r"(?s)train\.json.*weights that are .*: 2 \(1 is used\).*hard is -1"
    ) as caught:
        data.setup("fit")
    assert len([w for w in caught if "repaired" in str(w.message)]) == 1
    assert data.data["train"].weight[1:3].tolist() == [1, 1]
    assert data.data["val"].weight.tolist() == [1] * len(data.data["val"].boxes)  # no key in that file
    with pytest.raises(DataError, match=r"annotation 3 of image .*: hard is not a number"):
        data_module(folder, weight_key="hard", strict=True).setup("fit")
    data_module(folder, strict=True).setup("fit")
