import copy
import gc
import pickle
import warnings
import weakref
from inspect import ismethod

import pytest
import torch
from torch import nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from lit_dense.core.errors import UsageError
from lit_dense.detectors import attached, patch, unpatch
from lit_dense.detectors.retinanet import fast_methods
from tests.builders.detectors import Boxes, random_batch, small_retinanet

PICKLED = pytest.param(lambda m: pickle.loads(pickle.dumps(m)), id="pickle")
COPIES = pytest.mark.parametrize("copied", [pytest.param(copy.deepcopy, id="deepcopy"), PICKLED])

pytestmark = pytest.mark.fast_paths


def stood_in(model):
    """Which methods have a stand-in, and whether it is the module's own."""
    places = [(model, "compute_loss"), (model, "postprocess_detections"), (model.anchor_generator, "forward")]
    return {name: vars(m)[name].__self__ is attached(model) for m, name in places if ismethod(vars(m).get(name))}


def both(**arguments):
    stock, adopted = small_retinanet(), small_retinanet()
    for model in (stock, adopted):
        torch.manual_seed(2)
        for layer in model.head.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.24)  # scores of all sizes
        for name, value in arguments.items():
            setattr(model, name, copy.deepcopy(value))
    patch(adopted, "focal")
    assert stood_in(adopted) == {"compute_loss": True, "postprocess_detections": True, "forward": True}
    return stock, adopted


def seen_matches(model):
    """What the head is told, of every call."""
    seen = []
    stock = model.head.compute_loss
    model.head.compute_loss = lambda *args: seen.append(args[3]) or stock(*args)
    return seen


@pytest.mark.parametrize("counts", [(2, 0, 5), (0, 0), (1,), (60, 3)])
@pytest.mark.parametrize("matcher", [Matcher(0.5, 0.4, True), Matcher(0.6, 0.2, False), Matcher(0.3, 0.3, True)])
def test_matcher__matches_are_torchvisions_for_the_thresholds_of_the_detector(counts, matcher):
    stock, adopted = both(proposal_matcher=matcher)
    expected, got = seen_matches(stock), seen_matches(adopted)
    batch = random_batch(counts)
    torch.testing.assert_close(adopted(*batch), stock(*batch), rtol=1e-5, atol=1e-7)
    for mine, theirs in zip(got[0], expected[0], strict=True):
        assert torch.equal(mine, theirs)


class AnyTouch(Matcher):
    """A matcher of the host's own: whatever it overlaps, an anchor stands for."""

    def __call__(self, match_quality_matrix):
        value, match = match_quality_matrix.max(0)
        return torch.where(value > 0, match, -1)


def test_matcher__one_of_the_hosts_own_gets_all_ious():
    stock, adopted = both(proposal_matcher=AnyTouch(0.5, 0.4))
    batch = random_batch()
    torch.testing.assert_close(adopted(*batch), stock(*batch), rtol=1e-5, atol=1e-7)


def test_matcher__does_not_run_where_an_assigner_matches(monkeypatch):
    stock, adopted = both()
    stock.proposal_matcher = Matcher(0.3, 0.3, True)
    patch(adopted, "focal", assigner={"class_path": "max_iou", "init_args": {"positive": 0.3, "negative": 0.3}})
    monkeypatch.setattr(fast_methods, "match_images", None)
    batch = random_batch()
    torch.testing.assert_close(adopted(*batch), stock(*batch), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("topk_candidates", [5, 1000])
@pytest.mark.parametrize("score_thresh", [0.001, 0.05, 0.5, 1.0])
def test_postprocess_detections__are_torchvisions(score_thresh, topk_candidates):
    stock, adopted = both(score_thresh=score_thresh, topk_candidates=topk_candidates)
    images, targets = random_batch()
    images[1] = images[1][:, :, :40]
    expected, got = stock.eval()(images), adopted.eval()(images)
    _, again = attached(adopted).losses_and_detections(images, targets)
    for theirs, mine, once_more in zip(expected, got, again, strict=True):
        assert list(mine) == list(theirs)
        for name, values in theirs.items():
            assert torch.equal(mine[name], values)
            assert torch.equal(once_more[name], values)
    assert (len(expected[0]["boxes"]) > 0) is (score_thresh < 1)


@COPIES
def test_fast_methods__copies_have_their_own(copied):
    _, model = both()
    batch = random_batch()
    model(*batch)  # anchors are kept now
    clone = copied(model)
    assert stood_in(clone) == {"compute_loss": True, "postprocess_detections": True, "forward": True}
    assert list(clone.state_dict()) == list(small_retinanet().state_dict())
    with torch.no_grad():
        clone.head.classification_head.cls_logits.bias += 1
    assert clone(*batch)["classification"] != model(*batch)["classification"]
    unpatch(clone)
    assert stood_in(clone) == {}
    assert len(stood_in(model)) == 3


def test_fast_methods__kept_anchors_do_not_make_a_pickle_larger():
    _, model = both()
    before = len(pickle.dumps(model))
    model.eval()(random_batch()[0])
    geometry = 2000  # what the head notes of the batch
    assert len(pickle.dumps(model)) < before + geometry


def test_unpatch__leaves_no_fast_method():
    stock, model = both()
    unpatch(model)
    assert stood_in(model) == {}
    assert vars(model).keys() == vars(stock).keys()
    assert vars(model.anchor_generator).keys() == vars(stock.anchor_generator).keys()


def test_fast_methods__a_model_is_freed_with_its_last_user():
    _, model = both()
    model.eval()(random_batch()[0])
    gone = weakref.ref(model)
    gc.disable()
    try:
        del model
        assert gone() is None
    finally:
        gc.enable()


class OwnMethods(RetinaNet):
    def compute_loss(self, targets, head_outputs, anchors):
        return {"own": super().compute_loss(targets, head_outputs, anchors)["classification"]}

    def postprocess_detections(self, head_outputs, anchors, image_shapes):
        return [dict.fromkeys(("boxes", "scores", "labels"), torch.zeros(0, 4)) for _ in image_shapes]


class OwnAnchors(AnchorGenerator):
    shift = 0.0

    def grid_anchors(self, grid_sizes, strides):
        return [a + self.shift for a in super().grid_anchors(grid_sizes, strides)]


def test_fast_methods__methods_of_a_subclass_stay():
    model = small_retinanet()
    model.__class__ = OwnMethods
    model.anchor_generator.__class__ = OwnAnchors
    patch(model, "focal")
    assert stood_in(model) == {}
    images, targets = random_batch()
    assert list(model(images, targets)) == ["own"]
    assert len(model.eval()(images)[0]["boxes"]) == 0


def test_fast_methods__a_subclass_without_methods_of_its_own_is_taken_over():
    model = small_retinanet()
    model.__class__ = type("DeepForest", (RetinaNet,), {})
    patch(model, "focal")
    assert len(stood_in(model)) == 3
    assert type(model).__name__ == "DeepForest"


def test_fast_methods__an_attribute_that_the_host_set_stays():
    model = small_retinanet()
    model.compute_loss = lambda *args: {"own": torch.zeros(())}
    patch(model, "focal")
    with pytest.raises(UsageError, match="computes its training loss without calling RetinaNetHead"):
        model(*random_batch())
    unpatch(model)
    assert list(model(*random_batch())) == ["own"]


def anchors_inputs(size, images=2, kind=torch.float32):
    features = [torch.zeros(images, 1, size // stride, size // stride, dtype=kind) for stride in (8, 16)]
    return ImageList(torch.zeros(images, 3, size, size), [(size, size)] * images), features


def anchors_of(generator, size, images=2, kind=torch.float32):
    return generator(*anchors_inputs(size, images, kind))


def test_anchor_generator__anchors_are_torchvisions_and_computed_once(monkeypatch):
    stock, adopted = both()
    computed = []
    compute = AnchorGenerator.grid_anchors
    monkeypatch.setattr(AnchorGenerator, "grid_anchors", lambda *args: computed.append(1) or compute(*args))
    mine = adopted.anchor_generator
    for size, images in ((64, 2), (96, 1), (64, 2), (96, 3)):
        expected, got = anchors_of(stock.anchor_generator, size, images), anchors_of(mine, size, images)
        assert len(got) == images
        assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    assert len(computed) == 4 + 2
    for size in range(16, 16 * 20, 16):
        anchors_of(mine, size)
    assert len(attached(adopted).kept_anchors) == fast_methods.SHAPES_KEPT


def test_anchor_generator__anchors_that_were_changed_are_computed_again():
    stock, adopted = both()
    mine, theirs = adopted.anchor_generator, stock.anchor_generator
    anchors_of(mine, 64)[0].mul_(2)
    assert torch.equal(anchors_of(mine, 64)[0], anchors_of(theirs, 64)[0])
    for generator in (mine, theirs):
        generator.cell_anchors = [a + 1 for a in generator.cell_anchors]
    assert torch.equal(anchors_of(mine, 64)[0], anchors_of(theirs, 64)[0])


def test_anchor_generator__anchors_have_the_type_of_the_features():
    stock, adopted = both()
    for kind in (torch.float32, torch.float64, torch.float32):
        got = anchors_of(adopted.anchor_generator, 64, kind=kind)[0]
        assert got.dtype == kind
        assert torch.equal(got, anchors_of(stock.anchor_generator, 64, kind=kind)[0])


def test_anchor_generator__anchors_kept_by_inference_serve_training():
    _, model = both()
    patch(model, "focal", "giou")
    images, targets = random_batch()
    with torch.inference_mode():
        model.eval()(images)
    sum(model.train()(images, targets).values()).backward()


def test_fast_methods__a_traced_detector_is_torchvisions():
    stock, adopted = both()
    images, _ = random_batch((1,))
    others, _ = random_batch((1,), seed=7)  # a graph that holds what was chosen for one image fails on another
    found = []
    for model in (stock.eval(), adopted.eval()):
        model.anchor_generator(*anchors_inputs(64))  # something is kept already
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(Boxes(model), (images[0],), check_trace=False)
            found.append(traced(others[0]))
    for theirs, mine in zip(*found, strict=True):
        assert len(mine)
        assert torch.equal(mine, theirs)
