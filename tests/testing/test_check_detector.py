from types import SimpleNamespace

import pytest
import torch

from lit_dense.core.errors import UsageError
from lit_dense.criterion import Criterion
from lit_dense.detectors.base import DetectorAdapter
from lit_dense.detectors.fcos import FCOSAdapter
from lit_dense.detectors.ssd import SSDAdapter
from lit_dense.testing import check_detector
from lit_dense.testing.detector import losses_of
from tests.builders.detectors import small_faster_rcnn, small_fcos, small_retinanet, small_ssd, small_ssdlite
from tests.builders.kit import CHECKS, failure_of


def faster_rcnn():
    """Which draws all anchors, for processes draw apart."""
    return small_faster_rcnn(drawn=(10**6, 10**6))


DETECTORS = {
    small_retinanet: "retinanet",
    small_fcos: "fcos",
    small_ssd: "ssd",
    small_ssdlite: "ssd",
    faster_rcnn: "faster_rcnn",
}


@pytest.mark.ddp
@pytest.mark.parametrize(
    "make",
    [pytest.param(make, marks=pytest.mark.slow if make is small_ssdlite else []) for make in DETECTORS],
    ids=lambda make: make.__name__,
)
def test_check_detector__own_adapters_pass(make, two_processes):
    check_detector(DETECTORS[make], make, skip=["combinations"], two_processes=two_processes)


@pytest.mark.slow
@pytest.mark.parametrize("make", DETECTORS, ids=lambda make: make.__name__)
def test_check_detector__every_combination_of_parts_trains_or_is_refused(make):
    check_detector(DETECTORS[make], make, skip=set(CHECKS) - {"combinations"})


def failed(check, adapter, make, **how):
    """What one check alone finds."""
    found = failure_of(check_detector, adapter, make, skip=set(CHECKS) - {check}, **how)
    assert list(found.failed) == [check]
    return str(found)


def test_check_detector__finds_an_adapter_that_is_not_registered():
    class Own(FCOSAdapter):
        pass

    text = failed("found", Own, small_fcos)
    assert "one detector inside the model, with the adapter Own" in text
    assert "seen    : FCOSAdapter" in text
    assert "the entry-point group lit_dense.detectors" in text


def test_check_detector__finds_a_missing_error_for_two_detectors(monkeypatch):
    monkeypatch.setattr("lit_dense.testing.detector_checks.find_detector", lambda model: FCOSAdapter(_last(model)))
    assert "a UsageError for a model with two detectors" in failed("found", "fcos", small_fcos)


def _last(model):
    return [m for m in model.modules() if type(m).__name__ == "FCOS"][-1]


def test_check_detector__finds_steps_that_do_not_repeat():
    calls = []

    def step(model, images, targets):
        calls.append(1)
        return {name: len(calls) * term for name, term in model(images, targets).items()}

    assert "equal steps of equal models" in failed("steps_repeat", "fcos", small_fcos, step=step)


@pytest.mark.parametrize(
    ("defaults", "seen"),
    [
        ({"loss": "focal", "box_loss": "giou", "normalizer": "image"}, "the loss term classification ="),
        ({"loss": "focal", "box_loss": "l1", "normalizer": "batch"}, "the loss term bbox_regression ="),
    ],
    ids=["normalizer", "box loss"],
)
def test_check_detector__finds_other_defaults_than_the_detectors(monkeypatch, defaults, seen):
    monkeypatch.setattr(FCOSAdapter, "defaults", lambda self, stage: defaults)
    text = failed("own_loss", "fcos", small_fcos)
    assert "own loss terms and gradients (images with and without objects)" in text
    assert seen in text


def test_check_detector__finds_a_lost_term_and_a_wrong_gradient(monkeypatch):
    monkeypatch.setattr(FCOSAdapter, "samples", FCOSAdapter.__mro__[1].samples)
    assert "the loss terms ['bbox_regression', 'classification'] instead of" in failed("own_loss", "fcos", small_fcos)
    monkeypatch.undo()
    own = FCOSAdapter.loss_logits

    def halved(self, outputs):
        logits = own(self, outputs)
        return logits.detach() / 2 + logits / 2

    monkeypatch.setattr(FCOSAdapter, "loss_logits", halved)
    assert "a gradient of backbone.first.weight that is off by" in failed("own_loss", "fcos", small_fcos)


def test_check_detector__finds_detections_of_another_inference(monkeypatch):
    def other(self, outputs):
        return {**outputs, "cls_logits": outputs["cls_logits"] - 0.5}

    monkeypatch.setattr(FCOSAdapter, "with_scores", other)
    assert "the detector's own detections in image 0" in failed("own_detections", "fcos", small_fcos)


def test_check_detector__finds_a_draw_that_moves_the_generator(monkeypatch):
    own = FCOSAdapter.terms

    def drawing(self, *args):
        torch.rand(1)
        return own(self, *args)

    monkeypatch.setattr(FCOSAdapter, "terms", drawing)
    assert "the state of torch's generator" in failed("random_stream", "fcos", small_fcos)


def test_check_detector__finds_a_bias_in_the_wrong_order(monkeypatch):
    own = SSDAdapter.set_class_bias
    monkeypatch.setattr(SSDAdapter, "set_class_bias", lambda self, bias, stage: own(self, bias.flip(0), stage))
    assert "detections of labels [1], with scores from 0 to 1, where FocalLoss predicts" in failed(
        "columns", "ssd", small_ssd
    )
    assert "logits [" in failed("prior", "ssd", small_ssd)


def test_check_detector__finds_inference_that_keeps_the_detectors_scores(monkeypatch):
    monkeypatch.setattr("lit_dense.detectors.ssd.own_scores", lambda columns, loss: True)
    text = failed("columns", "ssd", small_ssd)
    assert "the scores that FocalLoss trains, 1 for each of two classes" in text
    assert "the scores that SoftmaxLoss trains" not in text


def test_check_detector__finds_a_bias_that_is_added_in_place_of_set(monkeypatch):
    def add(self, bias, stage):
        tower = self.detector.head.classification_head
        with torch.no_grad():
            tower.cls_logits.bias += bias.repeat(tower.num_anchors)

    monkeypatch.setattr(FCOSAdapter, "set_class_bias", add)
    assert "the score 0.02 of an object" in failed("prior", "fcos", small_fcos)


def test_check_detector__skips_the_prior_of_an_adapter_without_a_bias(monkeypatch):
    monkeypatch.setattr(FCOSAdapter, "set_class_bias", DetectorAdapter.set_class_bias)
    check_detector("fcos", small_fcos, skip=set(CHECKS) - {"columns", "prior"})


def installing(function):
    """An install that does a little more."""
    own = FCOSAdapter.install

    def install(self):
        own(self)
        function(self)

    return install


def test_check_detector__finds_additions_to_the_state_dict(monkeypatch):
    more = installing(lambda self: self.detector.register_buffer("more", torch.zeros(1)))
    monkeypatch.setattr(FCOSAdapter, "install", more)
    assert "'more'" in failed("state_dict", "fcos", small_fcos)


def test_check_detector__finds_what_is_left_behind(monkeypatch):
    monkeypatch.setattr(FCOSAdapter, "install", installing(lambda self: vars(self.detector).update(left=1)))
    text = failed("removal", "fcos", small_fcos)
    assert "after a step and unpatch" in text
    assert "changed: the model.left (int)" in text


def test_check_detector__finds_hooks_that_do_not_copy(monkeypatch):
    more = installing(lambda self: self.hook(self.detector.head, lambda *args: None))
    monkeypatch.setattr(FCOSAdapter, "install", more)
    assert "ickl" in failed("copies", "fcos", small_fcos)


def test_check_detector__finds_criteria_that_copies_share(monkeypatch):
    monkeypatch.setattr(Criterion, "__deepcopy__", lambda self, memo: self, raising=False)
    assert "independent criteria in a copy by copy.deepcopy" in failed("copies", "fcos", small_fcos)


def test_check_detector__finds_steps_that_are_counted_twice(monkeypatch):
    own = FCOSAdapter.terms

    def twice(self, *args):
        own(self, *args)
        return own(self, *args)

    monkeypatch.setattr(FCOSAdapter, "terms", twice)
    assert "1 step of the criterion after a training step" in failed("steps_counted", "fcos", small_fcos)


def test_check_detector__finds_offers_that_are_not_kept_or_not_made(monkeypatch):
    monkeypatch.setattr(FCOSAdapter, "offers", FCOSAdapter.offers - {"geometry", "assignment"} | {"levels"})
    text = failed("offers", "fcos", small_fcos)
    assert "seen    : levels" in text
    assert "a UsageError when samples.level_idxs is read" in text
    assert "a UsageError for another assigner" not in text  # which check refuses, for offers does not name it
    monkeypatch.undo()
    monkeypatch.setattr(FCOSAdapter, "_note_geometry", lambda self, generator, inputs: None)
    assert "samples.level_idxs, which offers announces" in failed("offers", "fcos", small_fcos)


def test_check_detector__lists_parts_that_fail_in_the_first_step_together(monkeypatch):
    own = FCOSAdapter.terms

    def terms(self, stage, samples, targets):
        if type(self.criteria[stage].loss).__name__ in ("SoftmaxLoss", "SeesawLoss"):
            raise IndexError("index 5 is out of bounds")
        return own(self, stage, samples, targets)

    monkeypatch.setattr(FCOSAdapter, "terms", terms)
    text = failed("parts", "fcos", small_fcos)
    assert "expected: a training step, or a UsageError when it is attached (seesaw, softmax)" in text
    assert text.count("FAILED parts") == 1


def test_check_detector__finds_a_refusal_without_a_name(monkeypatch):
    def check(self, stage, criterion):
        criterion.prepare(4)
        if criterion.matcher is not None:
            raise UsageError("This does not fit.")

    monkeypatch.setattr(FCOSAdapter, "check", check)
    text = failed("parts", "fcos", lambda: small_fcos(6))
    assert "a refusal that names a part (cleanliness, dw, atss, max_iou, nwd and 4 more)" in text


def test_check_detector__finds_a_batch_that_is_kept(monkeypatch):
    own = FCOSAdapter.terms

    def terms(self, stage, samples, targets):
        self.last = samples
        return own(self, stage, samples, targets)

    monkeypatch.setattr(FCOSAdapter, "terms", terms)
    assert "kept: logits, matched_idxs" in failed("memory", "fcos", small_fcos)


def test_check_detector__finds_a_model_that_only_the_collector_frees(monkeypatch):
    monkeypatch.setattr(FCOSAdapter, "install", installing(lambda self: vars(self).update(strong=self.detector)))
    assert "freed only by the garbage collector" in failed("memory", "fcos", small_fcos)


def test_check_detector__finds_terms_in_half_precision(monkeypatch):
    own = FCOSAdapter.terms

    def terms(self, *args):
        return {name: term.bfloat16() for name, term in own(self, *args).items()}

    monkeypatch.setattr(FCOSAdapter, "terms", terms)
    assert "a loss term classification in float32 under autocast" in failed("autocast", "fcos", small_fcos)


def per_image(model, images, targets):
    """Terms that are divided by the images of a process."""
    return {name: term / len(images) for name, term in losses_of(model, images, targets).items()}


@pytest.mark.ddp
def test_check_detector__finds_divisors_of_one_process(two_processes):
    text = failed("two_processes", "fcos", small_fcos, step=per_image, two_processes=two_processes)
    assert "in step 1 the terms and gradients of one process with all images, with its own loss" in text
    text = failed("two_processes", "fcos", lambda: small_fcos(), two_processes=two_processes)
    assert "make, step and detect that can be pickled" in text


def with_own_term(model, images, targets):
    """Terms, of which the detector computes one from its own images."""
    terms = losses_of(model, images, targets)
    return {**terms, "own": terms["bbox_regression"] / len(images)}


@pytest.mark.ddp
def test_check_detector__terms_that_the_detector_keeps_may_be_of_one_process(two_processes):
    how = {"step": with_own_term, "two_processes": two_processes}
    text = failed("two_processes", "fcos", small_fcos, **how)
    assert "the loss term own" in text
    check_detector("fcos", small_fcos, skip=set(CHECKS) - {"two_processes"}, of_process=["own"], **how)


def test_check_detector__tries_a_detector_that_keeps_its_loss_of_boxes_without_one(monkeypatch):
    monkeypatch.setattr("lit_dense.testing.detector_parts.BOX_LOSSES", SimpleNamespace(points=["giou"]))
    monkeypatch.setattr("lit_dense.testing.detector_parts.LOSSES", SimpleNamespace(points=["bce"]))
    tried = []

    def seen(subject, model, stage, given, names):
        tried.append((given["loss"], given["box_loss"], given["weighters"], names))

    monkeypatch.setattr("lit_dense.testing.detector_parts._problem", seen)
    check_detector("fcos", small_fcos, skip=set(CHECKS) - {"combinations"})
    assert {box_loss for _, box_loss, _, _ in tried} == {"giou"}
    tried.clear()
    monkeypatch.setattr(FCOSAdapter, "offers", FCOSAdapter.offers - {"box_loss"})
    check_detector("fcos", small_fcos, skip=set(CHECKS) - {"combinations"})
    assert {box_loss for _, box_loss, _, _ in tried} == {None}
    assert ("bce", None, ["ohem"], ["bce", "ohem"]) in tried


def test_check_detector__a_wrong_name_is_an_error():
    with pytest.raises(UsageError, match="Unknown check 'own_lose'"):
        check_detector("fcos", small_fcos, skip=["own_lose"])
    with pytest.raises(UsageError, match=r"Unknown detector 'fcoss'.*'fcos'"):
        check_detector("fcoss", small_fcos)
