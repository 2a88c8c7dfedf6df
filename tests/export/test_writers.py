"""Tests of files of exported detectors."""

import json
from unittest import mock

import pytest
import torch

from lit_dense.core.errors import UsageError
from lit_dense.export import writers
from lit_dense.export.verification import as_detections, compare
from lit_dense.export.writers import FORMATS, NEEDED, export
from tests.builders.exported import DETECTORS, random_images, small_module

SIZE = (96, 96)


def written(path, format, detector="retinanet", nms=True):
    for name in NEEDED.get(format, ()):
        pytest.importorskip(name)
    module = small_module(detector)
    graph = module.export_graph(SIZE, nms)
    return module, graph, export(graph, path, format, ["cat", "dog", "cow"])


@pytest.mark.parametrize("format", ["pt2", "torchscript", *(pytest.param(f, marks=pytest.mark.slow) for f in NEEDED)])
@pytest.mark.parametrize("detector", DETECTORS)
@torch.no_grad()
def test_export__file_computes_the_detections_of_the_module(detector, format, tmp_path):
    module, _, run = written(tmp_path / "model.xml", format, detector)
    images = random_images(2, SIZE)
    found = [as_detections(run(image.unsqueeze(0)), module.score_thresh)[0] for image in images]
    difference = compare(module(list(images)), found, SIZE)
    assert difference.unmatched == 0
    assert difference.score < 1e-5


@torch.no_grad()
def test_export__onnx_file_says_what_it_contains(tmp_path):
    module, graph, run = written(tmp_path / "model.onnx", "onnx")
    import onnx

    image = random_images(1, SIZE)
    assert compare(module(list(image)), as_detections(run(image), module.score_thresh), SIZE).unmatched == 0
    about = {entry.key: entry.value for entry in onnx.load(tmp_path / "model.onnx").metadata_props}
    assert json.loads(about["names"]) == ["cat", "dog", "cow"]
    assert json.loads(about["size"]) == list(SIZE)
    assert float(about["score_thresh"]) == graph.score_thresh


@pytest.mark.parametrize("format", ["pt2", *(pytest.param(f, marks=pytest.mark.slow) for f in ("onnx", "torchscript"))])
@torch.no_grad()
def test_export__without_suppression_a_file_takes_any_batch(format, tmp_path):
    _, graph, run = written(tmp_path / "model", format, nms=False)
    for number in (1, 3):
        images = random_images(number, SIZE)
        torch.testing.assert_close(run(images)[1], graph(images)[1], rtol=1e-4, atol=1e-5)


def test_export__a_missing_package_is_named(tmp_path):
    graph = small_module().export_graph(SIZE)
    with (
        mock.patch.object(writers, "find_spec", lambda name: None if name == "onnxruntime" else name),
        pytest.raises(UsageError, match=r"--format=onnx needs onnxruntime: pip install 'lit-dense\[export\]'"),
    ):
        export(graph, tmp_path / "model.onnx", "onnx", [])


def test_export__an_unknown_format_has_a_nearest_match(tmp_path):
    assert "onnx" in FORMATS
    with pytest.raises(UsageError, match="onnx"):
        export(small_module().export_graph(SIZE), tmp_path / "model", "onx", [])


@pytest.mark.slow
@torch.no_grad()
def test_to_onnx__of_a_module_in_training_writes_the_same_file(tmp_path):
    for name in NEEDED["onnx"]:
        pytest.importorskip(name)
    module = small_module().train()
    module.to_onnx(tmp_path / "model.onnx")
    assert module.training
    image = random_images(1, SIZE)
    found = as_detections(writers.run_onnx(tmp_path / "model.onnx")(image), module.score_thresh)
    assert compare(module.eval()(list(image)), found, SIZE).unmatched == 0
