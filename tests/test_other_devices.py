"""Everything stays on the device of what it is given; found out without one, by tensors that have no numbers."""

import contextlib
import dataclasses

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from lit_dense.assigners import ASSIGNERS, AssignInput, Assignment
from lit_dense.box_losses import BOX_LOSSES
from lit_dense.core.geometry import Geometry
from lit_dense.core.recomputation import Pass
from lit_dense.criterion import Criterion
from lit_dense.detectors.retinanet.fused_towers import tower_outputs
from lit_dense.functional.matching import match_by_iou
from lit_dense.losses import LOSSES
from lit_dense.metrics import DetectionMAP
from lit_dense.normalizers import NORMALIZERS
from lit_dense.weighters import WEIGHTERS
from tests.builders.assignment_vectors import Direct
from tests.builders.detectors import COUNTS, small_retinanet
from tests.builders.samples import samples_of

DEVICE = torch.device("lazy", 0)  # the one besides the processor whose backward passes need no hardware
# soft_background counts the boxes of each image, dw those around an anchor: tensors without numbers cannot do that
PARTS = [
    *({"loss": name} for name in sorted(LOSSES.points)),
    *({"box_loss": name} for name in sorted(BOX_LOSSES.points)),
    *({"normalizer": name} for name in sorted(NORMALIZERS.points)),
    *({"weighters": [name]} for name in sorted({*WEIGHTERS.points} - {"soft_background", "dw"})),
]


@pytest.fixture
def mode(monkeypatch):
    """Tensors in this mode have shapes, types and devices alone; mixed devices are an error."""
    # autocast does not know the device
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: contextlib.nullcontext())
    shapes = ShapeEnv(allow_dynamic_output_shape_ops=True)  # torchvision's IoU losses index by a mask
    return FakeTensorMode(allow_non_fake_inputs=True, static_shapes=True, shape_env=shapes)


def moved(tensor, mode):
    faked = mode.from_tensor(tensor.detach())
    with mode:
        return faked.to(DEVICE)


def moved_module(module, mode):
    for part in module.modules():
        part._buffers |= {name: moved(b, mode) for name, b in part._buffers.items() if b is not None}
        part._parameters |= {
            name: torch.nn.Parameter(moved(p, mode)) for name, p in part._parameters.items() if p is not None
        }
    return module


@pytest.mark.parametrize("parts", PARTS, ids=str)
def test_criterion__a_step_of_every_part_stays_on_its_device(parts, mode):
    real = samples_of((3, 0, 4))
    fields = {f.name: getattr(real, f.name) for f in dataclasses.fields(real)}
    tensors = {name: moved(value, mode) for name, value in fields.items() if isinstance(value, torch.Tensor)}
    if "weighters" in parts:
        tensors["target_fields"] = {"weight": moved(torch.ones(len(real.gt_labels)), mode)}
    criterion = Criterion(**parts, class_counts=COUNTS)
    extra = criterion.loss.extra_logits
    if extra:
        tensors["logits"] = moved(torch.zeros(len(real.logits), real.num_classes + extra), mode)
    if criterion.box_loss.box_coder is not None:
        tensors["deltas"] = moved(torch.zeros(len(real.logits), criterion.box_loss.box_outputs), mode)
        tensors["box_coder"] = criterion.box_loss.box_coder
    criterion.prepare(real.num_classes)
    criterion.check_ready()
    criterion._checked = {Pass(False, False), Pass(True, False)}  # it has just been, and looks at numbers
    moved_module(criterion, mode)
    samples = dataclasses.replace(real, **tensors, extra_logits=extra, score_logits=criterion.loss.score_logits)
    samples.__dict__["positives"] = moved(real.positives, mode)  # how many there are depends on numbers
    samples.__dict__["counts_of_images"] = real.image_idxs.bincount(minlength=real.num_images).tolist()  # so do these
    with mode:
        samples.logits.requires_grad_()
        samples.deltas.requires_grad_()
        terms = criterion(samples)
        sum(terms.values()).backward()
    assert {t.device for t in (*terms.values(), samples.logits.grad, samples.deltas.grad)} == {DEVICE}
    assert {buffer.device for buffer in criterion.buffers()} <= {DEVICE}


def test_mode__finds_a_part_on_the_wrong_device(mode):
    there = moved(torch.zeros(3), mode)
    with mode, pytest.raises(RuntimeError, match="device"):
        there + torch.zeros(3)


# without paa and simota, which count their candidates: tensors without numbers cannot do that
@pytest.mark.parametrize("name", sorted({*ASSIGNERS.points} - {"paa", "simota"}))
def test_assigners__stay_on_their_device(name, mode):
    anchors, gt_boxes = moved(torch.rand(80, 4), mode), moved(torch.rand(5, 4), mode)
    logits, labels = moved(torch.randn(80, 3), mode), moved(torch.zeros(5, dtype=torch.int64), mode)
    assigner = moved_module(ASSIGNERS.build(name), mode)
    image = AssignInput(
        anchors,
        gt_boxes,
        labels,
        logits,
        anchors,
        Direct(),
        lambda x: x,
        Geometry([(8, 8), (4, 4)], [(64, 64)]),
        lambda rows, matched: logits[rows, 0],
        step=10_000,
    )
    with mode:
        answer = assigner(image)
        assert (answer.matched_idxs if isinstance(answer, Assignment) else answer).device == DEVICE
        assert match_by_iou(anchors, gt_boxes).device == DEVICE


def test_tower_outputs__stay_on_their_device(mode):
    head = moved_module(small_retinanet().head, mode)
    features = [moved(torch.rand(2, 8, size, size), mode) for size in (8, 4)]
    with mode:
        for tower in (head.classification_head, head.regression_head):
            outputs = tower_outputs(tower, features)
            outputs.sum().backward()
            assert outputs.device == DEVICE


@pytest.mark.parametrize("protocol", ["coco", "lvis"])
def test_detection_map__states_stay_on_their_device(protocol, mode):
    boxes, labels = moved(torch.rand(3, 4), mode), moved(torch.zeros(3, dtype=torch.int64), mode)
    scores = moved(torch.rand(3), mode)
    with mode:
        metric = DetectionMAP(["cat"], protocol).to(DEVICE)
        target = {"boxes": boxes, "labels": labels, "neg_labels": labels, "not_exhaustive_labels": labels}
        metric.update([{"boxes": boxes, "scores": scores, "labels": labels}], [target], image_ids=[1])
        assert {rows.device for state in (metric.images, metric.boxes, metric.labels) for rows in state} == {DEVICE}
