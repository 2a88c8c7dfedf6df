import copy
import csv
import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image, ImageColor
from torch import nn

from lit_dense import SwapLoss
from lit_dense.callbacks import WeightPlots
from lit_dense.callbacks.weight_plots import _extremes
from lit_dense.core.errors import UsageError
from lit_dense.criterion import Criterion
from lit_dense.detectors import attached, find_detector, patch
from lit_dense.visualization.draw import NEGATIVE, POSITIVE, draw_weights, with_weight_legend
from lit_dense.weighters import Weighter, Weights
from tests.builders.detectors import NUM_CLASSES, random_batch, small_retinanet
from tests.builders.lit_modules import Foreign, SmallRetinaNet
from tests.builders.trainers import CollectiveTrainer, fit, observed_step

SHARES = {f"weights/{group}_share" for group in ("positive", "negative", "level_0", "level_1")}
SHARES |= {name.replace("_share", "_loss_share") for name in SHARES}


class FirstHalf(Weighter):
    """2 for the first half of the anchors, 0.5 for the others."""

    def forward(self, samples, values):
        weights = torch.full_like(values.classification, 0.5)
        weights[: len(weights) // 2] = 2.0
        return Weights(classification=weights)


def module_and_callbacks(kind, *weighters):
    if kind == "LitRetinaNet":
        return SmallRetinaNet(NUM_CLASSES, weighters=weighters), []
    return Foreign(), [SwapLoss("focal", weighters=weighters)]


def logged(folder):
    with (folder / "run" / "metrics.csv").open() as file:
        return {
            int(row["step"]): {k: float(v) for k, v in row.items() if v and "/" in k} for row in csv.DictReader(file)
        }


def pictures(folder):
    return sorted(path.name for path in folder.glob("run/weights/*"))


@pytest.mark.parametrize("weighter", ["pisa", "ohem"])
@pytest.mark.parametrize("kind", ["LitRetinaNet", "SwapLoss"])
def test_weight_plots__every_nth_step_is_drawn_and_logged(kind, weighter, tmp_path):
    module, callbacks = module_and_callbacks(kind, weighter)
    fit(tmp_path, module, WeightPlots(every_n_steps=2), *callbacks, batches=5)
    assert pictures(tmp_path) == ["step_000002.png", "step_000004.png"]
    with Image.open(tmp_path / "run/weights/step_000002.png") as picture:
        assert picture.width > 2 * 480  # two columns
    rows = logged(tmp_path)
    assert sorted(step for step, row in rows.items() if row) == [1, 3]  # as Lightning counts, from 0
    for row in (rows[1], rows[3]):
        assert set(row) == SHARES
        for kind_of_share in ("share", "loss_share"):
            assert row[f"weights/positive_{kind_of_share}"] + row[f"weights/negative_{kind_of_share}"] == pytest.approx(
                1
            )
            assert row[f"weights/level_0_{kind_of_share}"] + row[f"weights/level_1_{kind_of_share}"] == pytest.approx(1)


def test_weight_plots__folder_and_number_of_images_can_be_chosen(tmp_path):
    module, callbacks = module_and_callbacks("SwapLoss", FirstHalf())
    fit(tmp_path, module, WeightPlots(1, folder=str(tmp_path / "a"), num_images=1), *callbacks, batches=1)
    module, callbacks = module_and_callbacks("SwapLoss", FirstHalf())
    fit(tmp_path, module, WeightPlots(1, folder="b", num_images=3), *callbacks, batches=1)
    with Image.open(tmp_path / "a/step_000001.png") as one, Image.open(tmp_path / "run/b/step_000001.png") as three:
        assert three.height - one.height == 2 * (480 + 8)


def test_weight_plots__shares_are_those_of_weights_and_losses(tmp_path):
    seen = {}

    class Spy(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            attached(pl_module).criteria[""].observers.append(lambda *args: seen.update(args=args))

    module, callbacks = module_and_callbacks("SwapLoss", FirstHalf(), FirstHalf())
    fit(tmp_path, module, WeightPlots(1), *callbacks, Spy(), batches=1)
    samples, values, _ = seen["args"]
    number = len(samples.labels)
    weights = torch.where(torch.arange(number) < number // 2, 4.0, 0.25)
    weights = (weights / samples.pos_per_image.clamp(min=1).repeat_interleave(number // 3)).double()  # torchvision's
    weights[samples.labels == -2] = 0
    losses = weights * values.classification.detach()
    of_image = torch.arange(number) % (number // 3)
    groups = {
        "positive": samples.labels >= 0,
        "negative": samples.labels == -1,
        "level_0": of_image < 8 * 8 * 4,  # 64 pixels by 8, two sizes and two aspect ratios
        "level_1": of_image >= 8 * 8 * 4,
    }
    row = logged(tmp_path)[0]
    for name, inside in groups.items():
        assert row[f"weights/{name}_share"] == pytest.approx(float(weights[inside].sum() / weights.sum()), rel=1e-4)
        assert row[f"weights/{name}_loss_share"] == pytest.approx(float(losses[inside].sum() / losses.sum()), rel=1e-4)


def test_weight_plots__without_weighters_log_shares_and_draw_nothing(tmp_path):
    module, callbacks = module_and_callbacks("SwapLoss")
    fit(tmp_path, module, WeightPlots(1), *callbacks, batches=1)
    assert set(logged(tmp_path)[0]) == SHARES
    assert pictures(tmp_path) == []


def test_weight_plots__a_weighter_before_its_warm_up_is_not_drawn(tmp_path):
    module, callbacks = module_and_callbacks("LitRetinaNet", {"class_path": "ohem", "init_args": {"warmup_steps": 2}})
    fit(tmp_path, module, WeightPlots(1), *callbacks)
    assert pictures(tmp_path) == ["step_000003.png"]


def test_weight_plots__steps_are_counted_on_after_a_resume(tmp_path):
    module, callbacks = module_and_callbacks("SwapLoss", "ohem")
    saver = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1)
    fit(tmp_path / "first", module, WeightPlots(2), *callbacks, saver)
    module, callbacks = module_and_callbacks("SwapLoss", "ohem")
    fit(
        tmp_path / "second",
        module,
        WeightPlots(2),
        *callbacks,
        checkpoint=saver.best_model_path,
        max_epochs=2,
    )
    assert pictures(tmp_path / "first") == ["step_000002.png"]
    assert pictures(tmp_path / "second") == ["step_000004.png", "step_000006.png"]


def test_weight_plots__a_step_of_several_batches_is_shown_once(tmp_path):
    module, callbacks = module_and_callbacks("LitRetinaNet", "ohem")
    counter = WeightPlots(1)
    drawn = []
    counter._draw = lambda trainer, step: drawn.append(step)
    fit(tmp_path, module, counter, *callbacks, batches=4, accumulate_grad_batches=2)
    assert drawn == [1, 2]


def hooks_of(module):
    detector = find_detector(module).detector
    return len(detector.transform._forward_hooks), len(detector.anchor_generator._forward_pre_hooks)


@pytest.mark.parametrize("fails", [False, True])
def test_weight_plots__leave_no_trace(fails, tmp_path):
    module = Foreign()
    criterion = patch(module, weighters=["ohem"])
    before = hooks_of(module)
    step = module.training_step
    hooked = []

    def training_step(batch, batch_idx):
        hooked.append((len(criterion.observers), hooks_of(module)[0]))
        if fails and batch_idx == 1:
            raise RuntimeError("out of luck")
        return step(batch, batch_idx)

    module.training_step = training_step
    if fails:
        with pytest.raises(RuntimeError, match="out of luck"):
            fit(tmp_path, module, WeightPlots(2))
    else:
        fit(tmp_path, module, WeightPlots(2))
    assert hooked[:2] == [(0, before[0]), (1, before[0] + 1)]  # only in the step that is shown
    assert hooks_of(module) == before
    assert criterion.observers == []


def test_weight_plots__a_module_with_torchvisions_own_loss_is_an_error(tmp_path):
    with pytest.raises(UsageError, match="Foreign trains with RetinaNet's own loss"):
        fit(tmp_path, Foreign(), WeightPlots())
    with pytest.raises(UsageError, match="WeightPlots: every_n_steps must be at least 1, not 0"):
        WeightPlots(0)


def test_weight_plots__show_the_image_without_normalisation(tmp_path):
    callback = WeightPlots(1, num_images=2)
    shown = []
    callback._draw = lambda trainer, step: shown.extend(callback._shown)
    module, callbacks = module_and_callbacks("SwapLoss", FirstHalf())
    fit(tmp_path, module, callback, *callbacks, batches=1)
    images, targets = random_batch((2, 0, 3), seed=0)
    assert len(shown) == 2
    for seen, image, target in zip(shown, images, targets, strict=False):
        torch.testing.assert_close(seen.image, image, atol=1e-5, rtol=0)
        torch.testing.assert_close(seen.objects, target["boxes"])


def test_observers__see_training_alone_and_are_not_copied():
    model = small_retinanet()
    criterion = patch(model, weighters=["ohem"])
    calls = []
    criterion.observers.append(lambda samples, values, weights: calls.append((torch.is_grad_enabled(), len(weights))))
    model(*random_batch())
    with torch.no_grad():
        model(*random_batch())
    assert calls == [(False, 1)]
    assert copy.deepcopy(criterion).observers == pickle.loads(pickle.dumps(criterion)).observers == []
    assert len(criterion.observers) == 1
    assert "observers" not in criterion.spec
    assert criterion.state_dict().keys() == Criterion(weighters=["ohem"]).state_dict().keys()


def test_extremes__are_positives_and_hard_negatives():
    weights = torch.tensor([1.0, 3, 2, 0.5, 0.5, 0.2, 9])
    values = torch.tensor([1.0, 1, 1, 1, 2, 1, 1])
    labels = torch.tensor([-1, 0, -1, 1, -1, -1, -2])  # the last is ignored
    most, least = _extremes(weights, values, labels, 5)
    assert most.tolist() == [1, 2]
    assert least.tolist() == [5, 4, 3]  # of equal weights the greater loss comes first
    assert [len(found) for found in _extremes(weights, values, labels, 1)] == [1, 1]
    easy = torch.cat([torch.zeros(1), torch.rand(500) + 1])
    most, least = _extremes(torch.full((501,), 0.5).index_fill(0, torch.tensor(0), 0.1), easy, -torch.ones(501), 1)
    assert least.item() == easy.argmax()  # the first has less weight, but it is easy


def test_extremes__of_weights_that_only_fall_show_those_that_are_kept():
    most, least = _extremes(
        torch.tensor([0.0, 1, 1, 0]), torch.tensor([1.0, 2, 3, 4]), torch.tensor([-1, -1, 0, -1]), 9
    )
    assert most.tolist() == [2, 1]
    assert least.tolist() == [3, 0]


def test_draw_weights__lines_of_positives_and_negatives_differ():
    image, none = torch.zeros(3, 100, 100), torch.zeros(0, 4)
    box = torch.tensor([[20.0, 20, 80, 80]])
    of_positive = draw_weights(image, none, box, torch.tensor([2.0]), torch.tensor([True]), side=100)
    of_negative = draw_weights(image, none, box, torch.tensor([2.0]), torch.tensor([False]), side=100)
    for picture, colour, share in ((of_positive, POSITIVE, 1.0), (of_negative, NEGATIVE, 0.6)):
        edge = [picture.getpixel((x, 80)) == ImageColor.getrgb(colour) for x in range(20, 81)]
        assert sum(edge) / len(edge) == pytest.approx(share, abs=0.1)
    twice = draw_weights(
        image, none, torch.tensor([[20.0, 20, 80, 80], [25.0, 50, 60, 80]]), torch.ones(2), torch.zeros(2), side=100
    )
    assert [twice.getpixel((x, 80)) for x in range(30, 55)] == [of_negative.getpixel((x, 80)) for x in range(30, 55)]
    assert with_weight_legend(of_positive).size == (100, 136)


def _run(rank, folder, silent):
    """One step; the second process computes no loss if asked to be silent. Returns what was logged."""
    module = nn.Sequential(small_retinanet())
    parts = {"weighters": ["ohem"], "normalizer": "none"} if silent else {"weighters": ["pisa"]}
    patch(module, **parts)  # the loss of one process alone must make no collective
    rows = []
    logger = SimpleNamespace(log_metrics=lambda metrics, step: rows.append((step, metrics)))
    batch = None if silent and rank == 1 else random_batch(((2, 1), (0,))[rank], seed=1)
    observed_step(WeightPlots(1), CollectiveTrainer(folder, rank, loggers=[logger]), module, batch)
    return rows


@pytest.mark.ddp
@pytest.mark.parametrize("silent", [False, True])
def test_weight_plots__two_processes_log_one_sum(two_processes, silent, tmp_path):
    first, second = two_processes(_run, str(tmp_path), silent)
    assert first == second
    assert sorted(str(p.relative_to(tmp_path)) for p in Path(tmp_path).rglob("*.png")) == ["weights/step_000001.png"]
    ((step, row),) = first
    assert (step, set(row)) == (0, SHARES)
    assert row["weights/positive_share"] + row["weights/negative_share"] == pytest.approx(1)
