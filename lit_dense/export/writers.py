"""Writers of exported detectors: ONNX, ``torch.export``, TorchScript and OpenVINO; and functions that run the files."""

import contextlib
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._version import __version__
from ..core.errors import UsageError, check_choice
from .graph import DetectionGraph

OUTPUTS = ("boxes", "scores", "labels")
Run = Callable[[Tensor], tuple[Tensor, ...]]
"""Runs an exported file: takes uint8 images [N, 3, H, W]; returns boxes, scores and labels."""

SUFFIXES = {"onnx": ".onnx", "pt2": ".pt2", "torchscript": ".ts", "openvino": ".xml"}
FORMATS = tuple(SUFFIXES)
"""Names of the formats."""
NEEDED = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("onnx", "onnxscript", "openvino")}
"""Modules that a format needs besides torch."""


def export(graph: DetectionGraph, path: Path, format: str, names: list[str]) -> Run:
    """Write a detector to a file, and return a function that runs the file.

    Args:
        graph: The detector.
        path: The file.
        format: ``onnx``, ``pt2`` (``torch.export``), ``torchscript`` or ``openvino``.
        names: Name of each class.

    Raises:
        UsageError: If the format is unknown or a package is missing.
    """
    check_choice("export", "format", format, FORMATS)
    if missing := [name for name in NEEDED.get(format, ()) if not find_spec(name)]:
        raise UsageError(f"--format={format} needs {' and '.join(missing)}: pip install 'lit-dense[export]'.")
    path.parent.mkdir(parents=True, exist_ok=True)
    device = graph.anchors.device
    sample = torch.zeros(1 if graph.suppress else 2, 3, *graph.size, dtype=torch.uint8, device=device)
    about = metadata(graph, names)
    with torch.no_grad(), _quiet():
        run: Run = WRITERS[format](graph, path, sample, about)
    return run


def metadata(graph: DetectionGraph, names: list[str]) -> dict[str, str]:
    """Return what a file says about itself; all values are text.

    Args:
        graph: The detector.
        names: Name of each class.
    """
    return {
        "names": json.dumps(names),
        "size": json.dumps(list(graph.size)),
        "score_thresh": str(graph.score_thresh),
        "nms_thresh": str(graph.detector.nms_thresh) if graph.suppress else "none",
        "input": "uint8 RGB [N, 3, H, W]",
        "outputs": "boxes [N, D, 4] (x1 y1 x2 y2 in pixels), scores [N, D], labels [N, D]; no detection: label -1",
        "producer": f"lit_dense {__version__}",
    }


def _write_onnx(graph: DetectionGraph, path: Path, sample: Tensor, about: dict[str, str]) -> Run:
    dynamic = None if graph.suppress else {"images": {0: torch.export.Dim("batch", min=1)}}
    program: Any = torch.onnx.export(
        graph,
        (sample,),
        dynamo=True,
        input_names=["images"],
        output_names=list(OUTPUTS),
        dynamic_shapes=dynamic,
        verbose=False,
    )
    program.model.metadata_props.update(about)
    program.save(str(path))
    return run_onnx(path)


def run_onnx(path: Path) -> Run:
    """Return a function that runs an ONNX file with onnxruntime.

    Args:
        path: The file.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.from_numpy(o) for o in session.run(list(OUTPUTS), {"images": images.cpu().numpy()}))

    return run


def _write_pt2(graph: DetectionGraph, path: Path, sample: Tensor, about: dict[str, str]) -> Run:
    dynamic = None if graph.suppress else ({0: torch.export.Dim("batch", min=1)},)
    program = torch.export.export(graph, (sample,), dynamic_shapes=dynamic)
    torch.export.save(program, path, extra_files={"metadata.json": json.dumps(about)})
    loaded: Run = torch.export.load(path).module()
    return loaded


def _write_torchscript(graph: DetectionGraph, path: Path, sample: Tensor, about: dict[str, str]) -> Run:
    traced: Any = torch.jit.trace(graph, sample, check_trace=False)
    torch.jit.save(traced, str(path), _extra_files={"metadata.json": json.dumps(about)})
    loaded: Run = torch.jit.load(str(path))
    return loaded


def _write_openvino(graph: DetectionGraph, path: Path, sample: Tensor, about: dict[str, str]) -> Run:
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        onnx_file = Path(folder) / "model.onnx"
        _write_onnx(graph, onnx_file, sample, about)
        model = openvino.convert_model(str(onnx_file))
    for name, value in about.items():
        model.set_rt_info(value, ["lit_dense", name])
    openvino.save_model(model, str(path), compress_to_fp16=False)
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(images: Tensor) -> tuple[Tensor, ...]:
        found = compiled(images.cpu().numpy())
        return tuple(torch.from_numpy(np.array(found[index])) for index in range(len(OUTPUTS)))

    return run


WRITERS: dict[str, Callable[[DetectionGraph, Path, Tensor, dict[str, str]], Run]] = {
    "onnx": _write_onnx,
    "pt2": _write_pt2,
    "torchscript": _write_torchscript,
    "openvino": _write_openvino,
}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide the exporters' progress and deprecation notes, which do not concern the user."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
