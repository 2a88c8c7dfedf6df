"""Exported files of detectors with a calibrator or with box outputs of the loss: the numbers of the module."""

from importlib.util import find_spec

import pytest
import torch

from lit_dense import LitDetector
from lit_dense.cli.export_command import run_export
from lit_dense.core.errors import UsageError
from lit_dense.export.verification import as_detections, compare
from lit_dense.export.writers import NEEDED, export
from tests.builders.exported import DETECTORS, random_images, small_module
from tests.cli.test_export_command import saved

SIZE = (96, 96)
FORMAT = "onnx" if all(find_spec(name) for name in NEEDED["onnx"]) else "pt2"
CALIBRATORS = {
    "temperature": {"temperature": 1.7},
    "logit_adjustment": {"tau": 0.4, "counts": [900, 90, 3]},
    "fracal": {"frequencies": [0.6, 0.2, 0.01], "dimensions": [1.9, 1.4, 1.0]},
}


def calibrated(detector, name, **more):
    calibrator = {"class_path": name, "init_args": CALIBRATORS[name]}
    return small_module(detector, calibrator=calibrator, score_thresh=1e-4, **more)


def compared(module, run, images):
    """The difference of an exported file to the module's predictions, which must not be few."""
    batch = (list(images), [{} for _ in images])
    expected = [{name: d[name] for name in ("boxes", "scores", "labels")} for d in module.predict_step(batch, 0)]
    found = [as_detections(run(image.unsqueeze(0)), module.score_thresh)[0] for image in images]
    difference = compare(expected, found, SIZE)
    assert difference.detections > 20
    return difference


@pytest.mark.parametrize("loss", [None, "softmax"])
@pytest.mark.parametrize("name", CALIBRATORS)
@pytest.mark.parametrize("detector", DETECTORS)
@torch.no_grad()
def test_detection_graph__has_the_calibrated_scores_of_predictions(detector, name, loss):
    module, images = calibrated(detector, name, loss=loss), random_images(2, SIZE)
    difference = compared(module, module.export_graph(SIZE), images)
    assert difference.unmatched == 0
    assert difference.score < 1e-5
    plain = small_module(detector, loss=loss, score_thresh=1e-4)
    scores = [plain(list(images))[0]["scores"], module(list(images))[0]["scores"]]
    number = min(len(s) for s in scores)
    assert (scores[0][:number] - scores[1][:number]).abs().max() > 1e-3  # calibration changes them


@pytest.mark.parametrize(
    ("detector", "name"),
    [
        ("retinanet", "temperature"),
        pytest.param("ssd", "fracal", marks=pytest.mark.slow),
        *(pytest.param("retinanet", name, marks=pytest.mark.slow) for name in CALIBRATORS if name != "temperature"),
        pytest.param("fcos", "fracal", marks=pytest.mark.slow),
    ],
)
@torch.no_grad()
def test_export__a_file_has_the_calibrated_scores_of_predictions(detector, name, tmp_path):
    module = calibrated(detector, name)
    run = export(module.export_graph(SIZE), tmp_path / "model", FORMAT, [])
    difference = compared(module, run, random_images(2, SIZE))
    assert difference.unmatched == 0
    assert difference.score < 1e-5


@pytest.mark.parametrize("nms", [True, False])
@pytest.mark.parametrize("name", CALIBRATORS)
def test_run_export__of_a_checkpoint_with_a_calibrator(name, nms, tmp_path):
    path = saved(calibrated("retinanet", name), tmp_path / "best.ckpt")
    module = LitDetector.load_from_checkpoint(path)
    assert module.criterion.calibrator.spec["class_path"] == name
    report = run_export(module, None, path, "torchscript", None, None, nms, 2)
    assert "0 detections without a counterpart" in report or not nms
    run, image = torch.jit.load(str(tmp_path / "best.ts")), random_images(1, SIZE)
    with torch.no_grad():
        torch.testing.assert_close(run(image), module.export_graph(SIZE, nms)(image), rtol=1e-4, atol=1e-4)


def test_export_graph__a_calibrator_without_numbers_is_refused():
    module = small_module(calibrator="logit_adjustment")
    with pytest.raises(UsageError, match="'logit_adjustment' needs to know how often each class occurs"):
        module.export_graph(SIZE)


@pytest.mark.parametrize(
    ("detector", "format"),
    [
        pytest.param("retinanet", FORMAT, marks=pytest.mark.slow),
        ("fcos", "pt2"),
        ("retinanet", "torchscript"),
    ],
)
@torch.no_grad()
def test_export__a_file_decodes_the_box_outputs_of_a_loss(detector, format, tmp_path):
    module = small_module(detector, box_loss="dfl", nms_thresh=0.9)
    run = export(module.export_graph(SIZE), tmp_path / "model", format, [])
    difference = compared(module, run, random_images(2, SIZE))
    assert difference.unmatched == 0
    assert difference.score < 1e-5
    assert difference.box < 1e-2
