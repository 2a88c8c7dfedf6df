"""A model keeps its columns, whatever data it meets; hooks are called as a trainer calls them."""

import json
import warnings
from types import SimpleNamespace

import pytest
import torch

from lit_dense import ClassCounts, CocoDataModule, LitRetinaNet
from lit_dense.callbacks import DetectionPlots, PredictionWriter
from lit_dense.core.errors import UsageError
from lit_dense.detectors.retinanet.adapter import RetinaNetAdapter
from tests.builders.coco_files import SHAPES, write_shapes
from tests.builders.lit_modules import TrainedBias
from tests.builders.trainers import FakeTrainer, trainer_in

NETWORK = {"backbone": "tiny", "fpn_channels": 16, "head_convs": 1, "min_size": 64, "max_size": 64}
MODEL = [{"id": 1, "name": "red"}, {"id": 2, "name": "blue"}, {"id": 5, "name": "green"}]
SWAPPED = [{"id": 1, "name": "blue"}, {"id": 2, "name": "red"}, {"id": 5, "name": "green"}]
SUBSET = [{"id": 3, "name": "green"}]
OTHER = [{"id": 1, "name": "red"}, {"id": 2, "name": "yellow"}]
NAMES = {"swapped": SWAPPED, "subset": SUBSET}


class Run:
    """What a module asks its trainer."""

    callbacks = ()
    ckpt_path = None
    precision = "32-true"
    num_val_batches = num_test_batches = (1,)

    def __init__(self, categories=None, images=None):
        counts = None if images is None else ClassCounts(torch.tensor(images), torch.tensor(images), 9)
        number = len(categories) if categories else None
        self.datamodule = SimpleNamespace(categories=categories, class_counts=counts, num_classes=number)


def checkpoint_of(categories=MODEL, images=(7, 8, 9), **arguments):
    """What the checkpoint of a trained model holds."""
    model = LitRetinaNet(len(categories), **NETWORK, **arguments)
    model.categories, model.class_images = categories, list(images)
    model.criterion.step = 3
    checkpoint = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}
    model.on_save_checkpoint(checkpoint)
    return checkpoint


def begun(run, stage="fit", checkpoint=None, model=None, **arguments):
    """A model that has met the data, and then the checkpoint."""
    model = model or LitRetinaNet(**NETWORK, **arguments)
    model.trainer = run
    model.setup(stage)
    if checkpoint is not None:
        model.on_load_checkpoint(checkpoint)
        model.load_state_dict(checkpoint["state_dict"])
    {"fit": model.on_fit_start, "validate": model.on_validation_start, "predict": model.on_predict_start}[stage]()
    return model


@pytest.mark.parametrize("stage", ["fit", "validate"])
@pytest.mark.parametrize("data", NAMES)
def test_known_classes__a_checkpoint_of_the_trainer_decides_the_columns(stage, data, caplog):
    run, checkpoint = Run(NAMES[data], [4] * len(NAMES[data])), checkpoint_of()
    with caplog.at_level("INFO"):
        model = begun(run, stage, checkpoint)
        if stage == "fit":
            model.on_validation_start()  # which says nothing again
    assert model.num_classes == model.model.head.classification_head.num_classes == 3
    assert model.categories == MODEL
    assert model.data_categories == NAMES[data]
    assert model.label_map.columns == {"swapped": (1, 0, 2), "subset": (2,)}[data]
    assert model.class_names() == [c["name"] for c in NAMES[data]]
    assert caplog.text.count("matched with the model's by name") == 1
    torch.testing.assert_close(model.state_dict(), checkpoint["state_dict"])


@pytest.mark.parametrize("data", NAMES)
def test_known_classes__a_loaded_model_keeps_its_columns(data):
    model = LitRetinaNet(3, **NETWORK)
    model.on_load_checkpoint(checkpoint_of())
    begun(Run(NAMES[data]), "validate", model=model)
    assert model.categories == MODEL
    assert model.data_categories == NAMES[data]


@pytest.mark.parametrize("loaded", [False, True])
def test_known_classes__class_counts_follow_the_columns(loaded):
    checkpoint = checkpoint_of(loss="eql", weighters=["class_balanced"])
    arguments = {"loss": "eql", "weighters": ["class_balanced"]}
    if loaded:
        model = LitRetinaNet(3, **NETWORK, **arguments)
        model.on_load_checkpoint(checkpoint)
        begun(Run(SWAPPED, [2, 6, 3]), model=model)
        assert model.criterion.loss.frequencies.values.tolist() == pytest.approx([6 / 9, 2 / 9, 3 / 9])
        assert model.criterion.weighters[0].instance_counts.values.tolist() == [6, 2, 3]
    else:
        model = begun(Run(SWAPPED, [2, 6, 3]), checkpoint=checkpoint, **arguments)
    assert model.criterion.class_counts.images.tolist() == [6, 2, 3]
    assert model.class_images == [6, 2, 3]
    assert model.label_images() == [2, 6, 3]


@pytest.mark.parametrize(("data", "groups"), [(SWAPPED, ([1], [0], [2])), (SUBSET, ([], [], [0]))])
def test_known_classes__groups_by_frequency_follow_the_mapping(data, groups):
    checkpoint = checkpoint_of(images=(5, 50, 500))
    model = begun(Run(data), "validate", checkpoint)
    assert tuple(model.val_map.groups.values()) == groups
    assert model.val_map.class_names == tuple(c["name"] for c in data)


@pytest.mark.parametrize("stage", ["fit", "validate", "predict"])
def test_known_classes__other_classes_are_refused_when_the_run_begins(stage):
    with pytest.raises(
        UsageError, match=r"does not know 'yellow'.*The model has 1 red, .* The data has 1 red, 2 yellow"
    ):
        begun(Run(OTHER, [1, 1]), stage, checkpoint_of())
    model = LitRetinaNet(3, **NETWORK)
    model.on_load_checkpoint(checkpoint_of())
    model.trainer = run = Run(OTHER, [1, 1])
    model.setup(stage)  # no error yet: the trainer may read the checkpoint of a model that knows them
    with pytest.raises(UsageError, match="does not know 'yellow'"):
        begun(run, stage, model=model)


def test_known_classes__a_checkpoint_with_names_comes_after_a_model_without():
    model = LitRetinaNet(2, **NETWORK)
    model.categories = [{"id": 8, "name": "cat"}, {"id": 9, "name": "dog"}]
    begun(Run(OTHER), "validate", checkpoint_of(OTHER), model)
    assert model.categories == OTHER


def test_known_classes__another_number_of_classes_than_was_asked_for():
    with pytest.raises(
        UsageError, match=r"has 3 classes \(red, blue, green\), but num_classes=2: leave num_classes out"
    ):
        begun(Run(OTHER), "validate", checkpoint_of(), num_classes=2)


def test_known_classes__a_new_model_takes_the_classes_of_the_data_when_it_is_trained():
    model = begun(Run(MODEL), "validate")
    assert model.categories is None
    assert begun(Run(OTHER, [1, 1]), num_classes=2).categories == OTHER
    assert begun(Run(MODEL, [1, 1, 1])).categories == MODEL


def test_known_classes__a_checkpoint_without_names(caplog):
    checkpoint = checkpoint_of()
    del checkpoint["lit_dense"]
    with caplog.at_level("INFO"):
        model = begun(Run(SWAPPED, [1, 1, 1]), checkpoint=checkpoint)
    assert "not their names: the data's labels are used as its columns, 1 blue, 2 red" in caplog.text
    assert model.categories == SWAPPED


def test_known_classes__data_without_names():
    model = begun(Run(), "validate", checkpoint_of())
    assert model.data_categories == MODEL
    assert model.class_names() == ["red", "blue", "green"]
    model = begun(Run(), "validate", num_classes=2)
    assert model.class_names() is None
    with pytest.raises(UsageError, match="needs num_classes"):
        begun(Run(), "validate")


def test_known_classes__a_number_of_classes_may_come_from_the_checkpoint_alone():
    assert begun(Run(), "predict", checkpoint_of()).num_classes == 3


def target_of(*labels):
    boxes = torch.tensor([[1.0, 1, 20, 20]]).repeat(len(labels), 1)
    return {"boxes": boxes, "labels": torch.tensor(labels), "image_id": 4, "neg_labels": torch.tensor([0])}


def test_known_classes__a_training_step_trains_columns():
    model = begun(Run(SWAPPED, [1, 1, 1]), checkpoint=checkpoint_of())
    seen = []
    model.criterion.observers.append(lambda samples, *_: seen.append(samples.gt_labels.tolist()))
    model.log = model.log_dict = lambda *args, **kwargs: None
    model.training_step(([torch.rand(3, 64, 64)], [target_of(0, 2, 1)]), 0)
    assert seen == [[1, 2, 0]]


@pytest.mark.parametrize(
    ("data", "labels", "found"), [(SWAPPED, [0, 2], [1, 0, 2]), (SUBSET, [0], [0])], ids=["swapped", "subset"]
)
def test_known_classes__evaluation_uses_the_labels_of_the_data(monkeypatch, data, labels, found):
    model = begun(Run(data), "validate", checkpoint_of())
    boxes = torch.tensor([[1.0, 1, 20, 20]]).repeat(3, 1)
    detections = {"boxes": boxes, "labels": torch.tensor([0, 1, 2]), "scores": torch.tensor([0.9, 0.8, 0.7])}
    columns = []

    def detect(adapter, images, targets):
        columns.append(targets[0]["labels"].tolist())
        return {"classification": torch.tensor(0.0)}, [detections]

    monkeypatch.setattr(RetinaNetAdapter, "losses_and_detections", detect)
    model.log_dict = lambda *args, **kwargs: None
    output = model.validation_step(([torch.rand(3, 64, 64)], [target_of(*labels)]), 0)
    assert columns == [[{"blue": 1, "red": 0, "green": 2}[data[label]["name"]] for label in labels]]
    assert output["detections"][0]["labels"].tolist() == found
    rows = torch.cat(model.val_map.labels)
    assert rows[rows[:, 1] == 0][:, 0].tolist() == found
    assert rows[rows[:, 1] == 1][:, 0].tolist() == labels
    assert {"map/" + c["name"] for c in data} == {k for k in model.val_map.compute() if k.startswith("map/")}
    model.forward = lambda images: [detections]
    (predicted,) = model.predict_step(([torch.rand(3, 64, 64)], [{"image_id": 4}]), 0)
    assert predicted["labels"].tolist() == found
    assert predicted["image_id"] == 4


@pytest.mark.parametrize(("data", "ids"), [(SWAPPED, [2, 1, 5]), (SUBSET, [3]), (None, [1, 2, 5])])
def test_known_classes__predictions_have_the_ids_of_the_file_in_use(tmp_path, data, ids):
    model = begun(Run(data), "predict", checkpoint_of())
    boxes = torch.tensor([[1.0, 1, 20, 20]]).repeat(3, 1)
    model.forward = lambda images: [{"boxes": boxes, "labels": torch.arange(3), "scores": torch.ones(3)}]
    batch = ([torch.rand(3, 64, 64)], [{"image_id": 4}])
    writer = PredictionWriter()
    trainer = FakeTrainer(None, default_root_dir=tmp_path)
    writer.on_predict_start(trainer, model)
    writer.write_on_batch_end(trainer, model, model.predict_step(batch, 0), None, batch, 0, 0)
    writer.on_predict_end(trainer, model)
    assert [row["category_id"] for row in json.loads((tmp_path / "predictions.json").read_text())] == ids


def test_known_classes__plots_name_the_labels_of_the_data(tmp_path, monkeypatch):
    model = begun(Run(SWAPPED), "validate", checkpoint_of())
    names = []
    picture = torch.zeros(3, 8, 8, dtype=torch.uint8)
    monkeypatch.setattr("lit_dense.callbacks.detection_plots.draw_boxes", lambda *args, **kwargs: names.append(args[3]))
    monkeypatch.setattr("lit_dense.callbacks.detection_plots.side_by_side", lambda *args: None)
    monkeypatch.setattr("lit_dense.callbacks.detection_plots.log_picture", lambda *args: None)
    drawn = DetectionPlots()
    found = {"boxes": torch.ones(1, 4), "labels": torch.tensor([0]), "scores": torch.ones(1)}
    drawn._seen = [(picture, target_of(0), found)]
    drawn.on_validation_epoch_end(FakeTrainer(None, default_root_dir=tmp_path), model)
    assert names == [["blue", "red", "green"]] * 2


def told_of_random_weights(model, stage="validate"):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        begun(Run(MODEL, [1, 1, 1]), stage, model=model)
    return [str(w.message) for w in caught if "random weights" in str(w.message)]


@pytest.mark.parametrize("loss", ["focal", "softmax", "seesaw", "eql"])
def test_random_weights__are_warned_of(loss):
    for stage in ("validate", "predict"):
        (told,) = told_of_random_weights(LitRetinaNet(3, **NETWORK, loss=loss), stage)
        assert "has not been trained and no checkpoint was loaded" in told
        assert "Give --ckpt_path=PATH" in told
    assert not told_of_random_weights(LitRetinaNet(3, **NETWORK, loss=loss), "fit")
    model = LitRetinaNet(3, **NETWORK)
    model.trainer = run = Run(MODEL, [1, 1, 1])
    model.setup("fit")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.on_validation_start()  # of training
    del run


def trained():
    model = LitRetinaNet(3, **NETWORK)
    model.criterion.step = 1
    return model


def loaded_weights():
    other, model = LitRetinaNet(3, **NETWORK), LitRetinaNet(3, **NETWORK)
    torch.nn.init.normal_(other.model.head.classification_head.cls_logits.bias)
    model.model.load_state_dict(other.model.state_dict())
    return model


def loaded_checkpoint():
    model, checkpoint = LitRetinaNet(3, **NETWORK), checkpoint_of()
    model.on_load_checkpoint(checkpoint)
    model.load_state_dict(checkpoint["state_dict"])
    return model


class OwnWeights(TrainedBias, LitRetinaNet):
    pass


@pytest.mark.parametrize("make", [trained, loaded_weights, loaded_checkpoint, lambda: OwnWeights(3, **NETWORK)])
def test_random_weights__weights_from_anywhere_are_not_warned_of(make):
    assert not told_of_random_weights(make())
    assert not told_of_random_weights(make(), "predict")


def test_known_classes__a_trainer_evaluates_a_file_with_other_ids_and_a_part_of_the_classes(tmp_path):
    path = write_shapes(tmp_path, "val", counts=(3, 2, 4))
    content = json.loads(path.read_text())
    ids = {category["id"]: 10 - category["id"] for category in SHAPES}  # which turns their order round

    def write(name, names):
        kept = [c for c in content["categories"] if c["name"] in names]
        old = {c["id"] for c in kept}
        annotations = [
            {**a, "category_id": ids[a["category_id"]]} for a in content["annotations"] if a["category_id"] in old
        ]
        document = {**content, "annotations": annotations, "categories": [{**c, "id": ids[c["id"]]} for c in kept]}
        (tmp_path / name).write_text(json.dumps(document))

    write("moved.json", ("square", "bar"))
    write("part.json", ("square",))
    torch.manual_seed(0)
    model = LitRetinaNet(2, **NETWORK, eval_score_thresh=0.0)
    model.categories = sorted((dict(c) for c in SHAPES), key=lambda c: c["id"])
    model.criterion.step = 1

    def evaluate(name):
        data = CocoDataModule(**{"root": tmp_path, "num_workers": 0, "test_images": "val", "test_annotations": name})
        (numbers,) = trainer_in(tmp_path).test(model, data, verbose=False)
        return numbers

    plain, moved, part = (evaluate(name) for name in ("val.json", "moved.json", "part.json"))
    assert moved == pytest.approx(plain)
    assert part["test_map/square"] == pytest.approx(plain["test_map/square"])
    assert "test_map/bar" not in part
    assert part["test_map"] == part["test_map/square"]
