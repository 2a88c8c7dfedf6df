"""Tests of the command ``lit-dense export``, as functions."""

import pytest
import torch
from lightning.pytorch import Trainer

from lit_dense.cli import export_command
from lit_dense.cli.export_command import image_size, report, report_ap, run_export, size_of
from lit_dense.core.errors import UsageError
from lit_dense.data import CocoDataModule
from lit_dense.export.verification import Difference
from tests.builders.coco_files import data_arguments, write_shape_splits
from tests.builders.exported import small_module


def saved(module, path):
    trainer = Trainer(accelerator="cpu", logger=False, barebones=True)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(path)
    return path


@pytest.fixture
def checkpoint(tmp_path):
    return saved(small_module(), tmp_path / "best.ckpt")


def test_run_export__writes_a_file_beside_the_checkpoint(checkpoint):
    report = run_export(small_module(), None, checkpoint, "pt2", None, None, True, 4)
    assert (checkpoint.parent / "best.pt2").is_file()
    assert "Compared on 4 random images" in report
    assert "0 detections without a counterpart" in report


def test_report__says_that_nothing_was_compared_if_there_are_no_detections():
    (line,) = report(Difference(2, 0, 0, 0.0, 0.0), "random images")
    assert line.startswith("Not compared: neither model nor file has a detection in 2 random images.")
    assert report(Difference(2, 0, 3, 0.0, 0.0), "random images")[1].endswith("3 detections without a counterpart")


def test_run_export__uses_the_weights_of_the_checkpoint(checkpoint, tmp_path):
    other = small_module()
    for parameter in other.parameters():
        parameter.data.zero_()
    run_export(other, None, checkpoint, "torchscript", tmp_path / "a.ts", None, True, 2)
    run = torch.jit.load(str(tmp_path / "a.ts"))
    image = torch.randint(0, 256, (1, 3, 96, 96), dtype=torch.uint8)
    torch.testing.assert_close(run(image), small_module().export_graph((96, 96))(image), rtol=1e-4, atol=1e-4)


def test_run_export__compares_validation_images_and_their_ap(tmp_path):
    write_shape_splits(tmp_path)
    data, module = CocoDataModule(**data_arguments(tmp_path)), small_module()
    module.categories = [*data.categories, {"id": 99, "name": "other"}]
    report = run_export(
        small_module(), data, saved(module, tmp_path / "a.ckpt"), "pt2", tmp_path / "m.pt2", [64], True, 3
    )
    assert "validation images" in report
    assert "AP on these images: model" in report
    assert "on images of the file's size: model" in report


@pytest.mark.parametrize("detector", ["retinanet", "ssd"])
@pytest.mark.parametrize("shape", [(48, 64), (64, 48), (90, 90), (31, 200), (17, 5)])
def test_image_size__is_that_of_most_images_in_the_model(detector, shape):
    module = small_module(detector)
    images, _ = module.model.transform.eval()([torch.rand(3, *shape)])
    assert image_size(module, None, [(3, 300, 300), (3, *shape), (3, *shape)]) == images.image_sizes[0]


@pytest.mark.parametrize(("own", "said"), [(0.5, True), (0.31, False), (0.2, False)])
def test_report_ap__tells_what_the_input_size_costs(monkeypatch, own, said):
    numbers = iter([own, 0.305, 0.305])
    monkeypatch.setattr(export_command, "mean_ap", lambda *_: next(numbers))
    originals = [(torch.zeros(3, 48, 64, dtype=torch.uint8), {})] * 2
    canvases = [(torch.zeros(3, 96, 96, dtype=torch.uint8), {})] * 2
    lines = report_ap(small_module(), None, originals, canvases, [], [])
    assert lines[0].endswith(f"model {own:.4f}; on images of the file's size: model 0.3050, file 0.3050")
    assert len(lines) == 1 + said
    if said:
        assert lines[1].startswith(
            "The input size 96 x 96 costs 0.195 AP: the model itself scales these images to 72 x 96"
        )


def test_run_export__of_candidates(checkpoint, tmp_path):
    report = run_export(small_module(), None, checkpoint, "pt2", tmp_path / "m.pt2", None, False, 3)
    assert "input uint8 [N, 3, 96, 96]" in report


@pytest.mark.parametrize("size", [[], [1, 2, 3], [0]])
def test_image_size__rejects_other_than_one_or_two_numbers(size):
    with pytest.raises(UsageError, match="height and width in pixels"):
        image_size(small_module(), size)


def test_image_size__default_is_the_model_s():
    assert image_size(small_module("ssd", size=80), None) == (80, 80)
    module = small_module()
    module.model.transform.min_size, module.model.transform.max_size = (64,), 128
    assert image_size(module, None) == (64, 128)
    assert image_size(small_module(), [32, 64]) == (32, 64)


def test_size_of__weights_of_openvino_count(tmp_path):
    for name, size in (("a.xml", 3), ("a.bin", 40), ("a.onnx", 500)):
        (tmp_path / name).write_bytes(bytes(size))
    assert size_of(tmp_path / "a.xml") == 43
    assert size_of(tmp_path / "a.onnx") == 500


def test_run_export__wrong_candidates_are_refused(checkpoint, tmp_path, monkeypatch):
    def export(graph, *_):
        def shifted(batch):
            boxes, scores, labels = graph(batch)
            return boxes + 5, scores, labels

        (tmp_path / "m.pt2").touch()
        return shifted

    monkeypatch.setattr(export_command, "export", export)
    with pytest.raises(UsageError, match=r"m\.pt2 was written but does not compute the detections of the model"):
        run_export(small_module(), None, checkpoint, "pt2", tmp_path / "m.pt2", None, False, 3)


def test_run_export__a_folder_and_a_negative_number_are_refused_before_the_export(checkpoint, tmp_path):
    with pytest.raises(UsageError, match=f"--output={tmp_path} is a folder: give a file, such as .*best.pt2"):
        run_export(small_module(), None, checkpoint, "pt2", tmp_path, None, True, 3)
    with pytest.raises(UsageError, match="export: images must be at least 0, not -1"):
        run_export(small_module(), None, checkpoint, "pt2", None, None, True, -1)
