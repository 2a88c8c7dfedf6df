import copy
import pickle
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_dense import LitRetinaNet
from lit_dense.callbacks import SwapLoss
from lit_dense.core.nan_guard import NaNGuard, NonFiniteLossError, _Step, check_finite_weights
from lit_dense.criterion import Criterion
from lit_dense.detectors import attached, patch
from tests.builders.detectors import random_batch, small_faster_rcnn
from tests.builders.lit_modules import Foreign, SmallRetinaNet
from tests.builders.trainers import fit

TARGETS = [{"image_id": 3}, {"image_id": torch.tensor(8)}]


def terms(value, device="cpu"):
    return {"classification": torch.tensor(1.0, device=device), "bbox_regression": torch.tensor(value, device=device)}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_guard__the_message_names_loss_images_and_what_to_try(value):
    with pytest.raises(NonFiniteLossError) as error:
        NaNGuard()(terms(value), TARGETS, Criterion("focal", "giou"))
    said = str(error.value)
    assert f"bbox_regression = {value}" in said
    assert "classification" not in said
    assert "FocalLoss, GIoULoss" in said
    assert "images 3, 8" in said
    assert "learning rate" in said


def test_nan_guard__images_without_ids_and_finite_terms():
    check = NaNGuard()
    check(terms(2.0), TARGETS, Criterion())
    with pytest.raises(NonFiniteLossError, match="a batch of 2 images whose targets have no image_id"):
        check(terms(float("nan")), [{}, {}], Criterion())
    copy.deepcopy(check)
    pickle.loads(pickle.dumps(check))


def leave_a_bad_step(model):
    """What a GPU's last step leaves, of which nobody has heard yet."""
    step = _Step(list(terms(0.0)), torch.tensor([1.0, float("nan")]), TARGETS, Criterion())
    attached(model).nan_guard._pending = {"": (step, SimpleNamespace(synchronize=lambda: None))}


@pytest.mark.parametrize(("stage", "name"), [("rpn", "loss_objectness"), ("roi", "loss_classifier")])
def test_nan_guard__the_message_names_the_stage_and_its_terms(stage, name):
    model = small_faster_rcnn()
    for each in ("rpn", "roi"):
        patch(model, "bce", stage=each)
    last = model.rpn.head.cls_logits if stage == "rpn" else model.roi_heads.box_predictor.cls_score
    torch.nn.init.constant_(last.bias, float("nan"))
    if stage == "rpn":  # torchvision refuses what follows from it in the forward pass
        model.rpn.filter_proposals = lambda proposals, *rest: ([p[:20].detach() for p in proposals], None)
    with pytest.raises(
        NonFiniteLossError, match=f"{name} = nan.* Computed by BCELoss, SmoothL1Loss.* in stage {stage!r}"
    ):
        model(*random_batch((2, 1), first_label=1))


def test_nan_guard__steps_of_two_stages_wait_apart():
    check = NaNGuard()
    waited = []

    def left(stage, value):
        step = _Step(["loss"], torch.tensor([value]), TARGETS, Criterion(), stage)
        return step, SimpleNamespace(synchronize=lambda: waited.append(stage))

    check._pending = {"rpn": left("rpn", 1.0), "roi": left("roi", float("nan"))}
    check._check_pending("rpn")
    assert waited == ["rpn"]  # the step of the other stage is checked in its next step
    with pytest.raises(NonFiniteLossError, match="in stage 'roi'"):
        check.flush()


@pytest.mark.parametrize("hook", ["on_save_checkpoint", "on_train_end"])
def test_nan_guard__no_checkpoint_is_written_of_a_bad_last_step(hook):
    module = LitRetinaNet(backbone="tiny", num_classes=2)
    module.configure_model()
    leave_a_bad_step(module.model)
    model, callback = Foreign(), SwapLoss("focal")
    callback.setup(SimpleNamespace(), model, "fit")
    leave_a_bad_step(model)
    checkpoint = [{}] if hook == "on_save_checkpoint" else []
    for call in (lambda: getattr(module, hook)(*checkpoint), lambda: getattr(callback, hook)(None, model, *checkpoint)):
        with pytest.raises(NonFiniteLossError, match="images 3, 8"):
            call()
        call()  # said once: a checkpoint of an interrupted run can still be written


@pytest.mark.gpu
def test_nan_guard__on_a_gpu_a_bad_step_is_found_in_the_next():
    check = NaNGuard()
    check(terms(float("nan"), "cuda"), TARGETS, Criterion())
    with pytest.raises(NonFiniteLossError, match="images 3, 8"):
        check(terms(1.0, "cuda"), [{}], Criterion())


def test_check_finite_weights__names_the_weight_and_spares_those_that_are_not_trained():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    check_finite_weights(model)
    check_finite_weights(torch.nn.LazyLinear(1))
    with torch.no_grad():
        model[1].bias[0], model[0].weight[1, 1] = float("inf"), float("nan")
    with pytest.raises(NonFiniteLossError, match=r"0\.weight and 1 more of 4 trained parameters"):
        check_finite_weights(model)
    model.requires_grad_(False)
    check_finite_weights(model)


@pytest.mark.parametrize("foreign", [False, True])
def test_check_finite_weights__no_checkpoint_is_written_after_an_infinite_gradient(foreign, tmp_path):
    class Overflow(Callback):
        def on_before_optimizer_step(self, trainer, module, optimizer):
            if trainer.global_step == 2:
                next(p for p in module.parameters() if p.grad is not None).grad.fill_(float("inf"))

    saver = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    module, swap = (Foreign(), [SwapLoss("ghm")]) if foreign else (SmallRetinaNet(4, warmup_steps=0), [])
    with pytest.raises(NonFiniteLossError, match="although its loss was finite"):
        fit(tmp_path, module, Overflow(), *swap, saver, batches=4, limit_val_batches=0)
    assert {path.name for path in tmp_path.glob("*.ckpt")} == {"step=1.ckpt", "step=2.ckpt"}
