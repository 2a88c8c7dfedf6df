"""Faster R-CNN with its own losses behind criteria: what the detector gives stays what it is."""

import copy
import gc
import pickle
import weakref
from collections.abc import Mapping

import pytest
import torch
from torch import nn
from torchvision.models.detection import KeypointRCNN, MaskRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import MultiScaleRoIAlign

from lit_dense.core.errors import NonFiniteLossError, UsageError
from lit_dense.detectors import attached, patch, unpatch
from lit_dense.detectors import roi_heads as own_roi_heads
from tests.builders.detectors import NUM_CLASSES, gradients, random_batch, small_faster_rcnn

STAGES = {"roi": ("roi",), "rpn": ("rpn",), "both": ("rpn", "roi")}


class OwnPredictor(FastRCNNPredictor):
    """Somebody's subclass, with a parameter of its own."""

    def __init__(self):
        super().__init__(16, NUM_CLASSES + 1)
        self.temperature = nn.Parameter(torch.tensor(2.0))

    def forward(self, x):
        logits, deltas = super().forward(x)
        return logits * self.temperature, deltas


class OwnHeads(RoIHeads):
    """Somebody's subclass, which moves the proposals and has a term more."""

    def select_training_samples(self, proposals, targets):
        return super().select_training_samples([p + 0.5 for p in proposals], targets)

    def forward(self, *inputs):
        found, terms = super().forward(*inputs)
        return found, terms | {"loss_own": self.box_predictor.temperature**2} if self.training else terms


class OwnRPN(RegionProposalNetwork):
    """Somebody's subclass, for which a low-quality match is background."""

    def assign_targets_to_anchors(self, anchors, targets):
        labels, boxes = super().assign_targets_to_anchors(anchors, targets)
        return [label * (torch.arange(len(label)) % 3 > 0) for label in labels], boxes


def own_parts():
    model = small_faster_rcnn()
    model.roi_heads.box_predictor = OwnPredictor()
    model.roi_heads.__class__, model.rpn.__class__ = OwnHeads, OwnRPN
    return model


def second_version():
    model = small_faster_rcnn()
    model.roi_heads.box_head = FastRCNNConvFCHead((8, 5, 5), [8], [16], norm_layer=nn.BatchNorm2d)
    return model


def mask_rcnn():
    model = small_faster_rcnn(MaskRCNN, mask_roi_pool=MultiScaleRoIAlign(["a", "b"], 4, 2))
    model.roi_heads.mask_head = MaskRCNNHeads(8, (8,), 1)
    model.roi_heads.mask_predictor = MaskRCNNPredictor(8, 8, NUM_CLASSES + 1)
    return model


def keypoint_rcnn():
    pool = MultiScaleRoIAlign(["a", "b"], 4, 2)
    model = small_faster_rcnn(KeypointRCNN, keypoint_roi_pool=pool, num_keypoints=3)
    model.roi_heads.keypoint_head = KeypointRCNNHeads(8, (8,))
    model.roi_heads.keypoint_predictor = KeypointRCNNPredictor(8, 3)
    return model


KINDS = {
    "faster": small_faster_rcnn,
    "second version": second_version,
    "own parts": own_parts,
    "mask": mask_rcnn,
    "keypoint": keypoint_rcnn,
}


def batch(counts=(2, 0, 5), seed=1):
    """Images, with masks and keypoints too; one of them is smaller, so that it is padded."""
    images, targets = random_batch(counts, seed=seed, first_label=1)
    images[-1] = images[-1][:, :, :56]
    for image, target in zip(images, targets, strict=True):
        count, size = len(target["boxes"]), image.shape[-2:]
        target["boxes"][:, 0::2] *= size[1] / 64
        target["masks"] = (torch.rand(count, *size) > 0.5).to(torch.uint8)
        target["keypoints"] = torch.cat([target["boxes"][:, None, :2].repeat(1, 3, 1) + 4, torch.ones(count, 3, 1)], 2)
    return images, targets


def step(model, images, targets, seed=5):
    """Terms and gradients of a training step, and the state of the random stream after it."""
    torch.manual_seed(seed)
    model.zero_grad()
    terms = model([i.clone() for i in images], copy.deepcopy(targets))
    sum(terms.values()).backward()
    return {name: term.detach() for name, term in terms.items()}, gradients(model), torch.get_rng_state()


def detections(model, images):
    model.eval()
    with torch.no_grad():
        found = model(images)
    model.train()
    return found


def trace(model):
    """Everything of a model that something put into it could change."""
    return {
        f"{name}.{attribute}": len(value) if isinstance(value, Mapping) else type(value)
        for name, module in model.named_modules()
        for attribute, value in vars(module).items()
    }


@pytest.mark.parametrize("counts", [(2, 0, 5), (0, 0), (3, 1)], ids=str)
@pytest.mark.parametrize("stages", STAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_faster_rcnn__own_losses_are_those_of_torchvision(kind, stages, counts):
    if kind in ("mask", "keypoint") and sum(counts) == 0:
        counts = (1, 0)  # torchvision's own losses of no masks are another matter
    stock, patched = KINDS[kind](), KINDS[kind]()
    seen = {}
    for stage in STAGES[stages]:
        hook = lambda module, args, stage=stage: seen.update({stage: args[0]})  # noqa: E731
        patch(patched, stage=stage).register_forward_pre_hook(hook)
    images, targets = batch(counts)
    for _ in range(2):  # the second time with the hooks of the first behind them
        expected, grads, state = step(stock, images, targets)
        got, own_grads, own_state = step(patched, images, targets)
        assert list(got) == list(expected)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-7)
        assert (own_grads - grads).norm() < 1e-5 * grads.norm()
        assert torch.equal(own_state, state)
    assert set(seen) == set(STAGES[stages])
    for a, b in zip(detections(stock, images), detections(patched, images), strict=True):
        assert list(a) == list(b)
        assert all(torch.equal(a[name], b[name]) for name in a)
    if kind == "faster" and counts == (2, 0, 5) and "roi" in seen:
        assert len(set(seen["roi"].image_idxs.bincount().tolist())) == 3  # images with different numbers of proposals


@pytest.mark.parametrize("stage", ["roi", "rpn"])
def test_faster_rcnn__a_stage_that_is_not_swapped_is_left_alone(stage):
    model = small_faster_rcnn()
    other = {"roi": model.rpn, "rpn": model.roi_heads}[stage]
    batch_ = batch()
    model(*batch_)
    before = trace(other)
    patch(model, "bce", stage=stage)
    assert trace(other) == before


@pytest.mark.parametrize("copied", [lambda m: m, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
@pytest.mark.parametrize("kind", KINDS)
def test_unpatch__leaves_no_trace(kind, copied):
    model = KINDS[kind]()
    images, targets = batch()
    model(images, targets)  # pooling notes its levels at the first call
    before, keys = trace(model), list(model.state_dict())
    types, parameters = [type(m) for m in model.modules()], len(list(model.parameters()))
    expected = step(model, images, targets)
    patch(model, "focal", stage="roi")
    patch(model, "ghm", stage="rpn")
    model = copied(model)
    step(model, images, targets)
    assert list(model.state_dict()) == keys
    with pytest.warns(UserWarning, match="FocalLoss"):
        unpatch(model)
    assert trace(model) == before
    assert [type(m) for m in model.modules()] == types
    assert len(list(model.parameters())) == parameters
    if kind != "second version":  # whose batch norm has seen a step more
        got = step(model, images, targets)
        assert got[0] == expected[0]
        assert torch.equal(got[1], expected[1])


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_faster_rcnn__copies_have_losses_of_their_own(copied):
    model = small_faster_rcnn()
    for stage in STAGES["both"]:
        patch(model, "eql_v2" if stage == "roi" else "focal", normalizer="ema", stage=stage)
    images, targets = batch()
    step(model, images, targets)
    clone = copied(model)
    got, expected = step(clone, images, targets), step(model, images, targets)
    assert got[0] == expected[0]
    step(clone, images, targets)
    adapter, other = attached(model), attached(clone)
    assert other.detector is clone
    assert [c.step for c in adapter.criteria.values()] == [2, 2]
    assert [c.step for c in other.criteria.values()] == [3, 3]
    for a, b in zip(detections(clone, images), detections(model, images), strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_faster_rcnn__a_step_counts_once_and_an_evaluation_never():
    model = small_faster_rcnn()
    criteria = [patch(model, "ghm", stage=stage) for stage in STAGES["both"]]
    images, targets = batch()
    step(model, images, targets)
    with torch.no_grad():
        model(images, targets)
        states = [copy.deepcopy(c.state_dict()) for c in criteria]
        attached(model.eval()).losses_and_detections(images, targets)
    detections(model, images)
    assert [c.step for c in criteria] == [1, 1]
    torch.testing.assert_close([c.state_dict() for c in criteria], states)


@pytest.mark.parametrize("place", ["box_head", "skipped loss", "rpn box_coder", "rpn loss", "roi loss"])
def test_faster_rcnn__an_exception_within_a_step_changes_no_later_step(place, monkeypatch):
    stock, model = small_faster_rcnn(), small_faster_rcnn()
    criteria = {stage: patch(model, stage=stage) for stage in STAGES["both"]}
    images, targets = batch()

    def fail(*args, **kwargs):
        raise RuntimeError("out of memory")

    with monkeypatch.context() as broken:
        owner, name = {
            "box_head": (model.roi_heads.box_head, "forward"),
            "skipped loss": (own_roi_heads, "_without_loss"),
            "rpn box_coder": (model.rpn.box_coder, "encode"),
            "rpn loss": (criteria["rpn"], "forward"),
            "roi loss": (criteria["roi"], "forward"),
        }[place]
        broken.setattr(owner, name, fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            step(model, images, targets)
    assert not tensors_of(attached(copy.deepcopy(model)))
    for a, b in zip(detections(stock, images), detections(model, images), strict=True):
        assert all(torch.equal(a[key], b[key]) for key in a)
    assert not tensors_of(attached(model))
    expected, got = step(stock, images, targets), step(model, images, targets)
    torch.testing.assert_close(got[0], expected[0], rtol=1e-5, atol=1e-7)


def test_faster_rcnn__a_loss_that_is_not_finite_changes_no_later_step():
    model = small_faster_rcnn()
    for stage in STAGES["both"]:
        patch(model, stage=stage)
    images, targets = batch()
    with pytest.raises(NonFiniteLossError, match="BCELoss"):
        model([i * float("nan") for i in images], targets)
    assert all(term.isfinite() for term in step(model, images, targets)[0].values())


def tensors_of(adapter):
    """Tensors that an adapter holds, but for its criteria's."""
    held, waiting, seen = [], [v for k, v in vars(adapter).items() if k not in ("criteria", "_hooks")], set()
    while waiting:
        item = waiting.pop()
        if id(item) in seen or isinstance(item, (type, nn.Module)):
            continue
        seen.add(id(item))
        if isinstance(item, torch.Tensor):
            held.append(item)
        waiting += gc.get_referents(item)
    return held


def test_faster_rcnn__nothing_of_a_batch_is_kept_and_the_model_is_freed():
    model = small_faster_rcnn()
    for stage in STAGES["both"]:
        patch(model, stage=stage, weighters=["pisa"])
    images, targets = batch()
    outputs = []

    def note(module, args, given):
        outputs.extend(weakref.ref(t) for t in given if isinstance(t, torch.Tensor))

    for module in (model.roi_heads.box_predictor, model.rpn.head.cls_logits):
        module.register_forward_hook(lambda m, a, given: note(m, a, given if isinstance(given, tuple) else (given,)))
    step(model, images, targets)
    assert not tensors_of(attached(model))
    gc.collect()
    assert len(outputs) == 4
    assert all(reference() is None for reference in outputs)
    freed = weakref.ref(model)
    del model, module
    assert freed() is None  # at once: nothing refers to it in a circle


def test_faster_rcnn__mixed_precision():
    stock, model = small_faster_rcnn(), small_faster_rcnn()
    for stage in STAGES["both"]:
        patch(model, stage=stage)
    images, targets = batch()
    with torch.autocast("cpu", torch.bfloat16):
        expected, got = step(stock, images, targets), step(model, images, targets)
        # torchvision rounds the targets of boxes to bfloat16
        torch.testing.assert_close(got[0], expected[0], rtol=1e-2, atol=1e-4)
        assert (got[1] - expected[1]).norm() < 2e-2 * expected[1].norm()
        patch(model, "focal")
        assert all(d["scores"].dtype == torch.float32 for d in detections(model, images))


def test_faster_rcnn__double_precision():
    stock, model = small_faster_rcnn().double(), small_faster_rcnn().double()
    for stage in STAGES["both"]:
        patch(model, stage=stage)
    images, targets = batch()
    images = [i.double() for i in images]
    targets = [t | {"boxes": t["boxes"].double()} for t in targets]
    expected, got = step(stock, images, targets), step(model, images, targets)
    torch.testing.assert_close(got[0], expected[0], rtol=1e-5, atol=1e-7, check_dtype=False)


@pytest.mark.gpu
def test_faster_rcnn__losses_on_a_gpu_are_those_of_the_cpu_and_an_evaluation_draws_from_no_stream():
    on_cpu, on_gpu = (small_faster_rcnn(drawn=(10**6, 10**6)) for _ in range(2))
    on_gpu.cuda()
    images, targets = batch()
    moved = [i.cuda() for i in images], [{k: v.cuda() for k, v in t.items() if k != "image_id"} for t in targets]
    for model in (on_cpu, on_gpu):
        for stage in STAGES["both"]:
            patch(model, "ghm", stage=stage)
    expected, got = on_cpu(images, targets), on_gpu(*moved)
    for name, term in expected.items():
        torch.testing.assert_close(got[name].cpu(), term, rtol=1e-3, atol=1e-5)
    states = torch.get_rng_state(), torch.cuda.get_rng_state()
    with torch.no_grad():
        first, _ = attached(on_gpu.eval()).losses_and_detections(*moved)
        assert attached(on_gpu).losses_and_detections(*moved)[0] == first
    assert torch.equal(torch.get_rng_state(), states[0])
    assert torch.equal(torch.cuda.get_rng_state(), states[1])


def test_faster_rcnn__class_weights_of_the_rpn_are_refused():
    with pytest.raises(UsageError, match=r"only class of stage 'rpn' is that of all objects.*no effect: leave it out"):
        patch(small_faster_rcnn(), "focal", stage="rpn", class_weights={"scratch": 5})


def test_faster_rcnn__compiled_training_gives_the_loss_of_each_step():
    model = small_faster_rcnn()
    patch(model)
    compiled = torch.compile(model, backend="eager")
    images, targets = random_batch((2, 1), NUM_CLASSES)
    targets = [{**target, "labels": target["labels"] + 1} for target in targets]

    def loss(network):
        torch.manual_seed(0)
        return sum(network(images, copy.deepcopy(targets)).values()).item()

    plain = loss(model)
    assert [loss(compiled) for _ in range(3)] == pytest.approx([plain] * 3, rel=1e-5)
