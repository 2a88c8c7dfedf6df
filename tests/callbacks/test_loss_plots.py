import csv
import io
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from lit_dense import SwapLoss
from lit_dense.callbacks import LossPlots
from lit_dense.core.distributed import Reduce
from lit_dense.core.errors import UsageError
from lit_dense.detectors import attached, patch
from lit_dense.functional.loss_distribution import NORM_BINS, hardest_share
from tests.builders.detectors import COUNTS, NUM_CLASSES, random_batch, small_retinanet
from tests.builders.lit_modules import Foreign, SmallRetinaNet
from tests.builders.trainers import CollectiveTrainer, FakeTrainer, fit, observed_step

LOSSES = {
    "focal": {},
    "ghm": {},
    "softmax": {},
    "seesaw": {},
    "eql_v2": {},
    "federated": {},
    "bce": {"weighters": ["ohem"]},
    "qfl": {"weighters": ["pisa"], "normalizer": "batch"},
    "vfl": {"weighters": ["class_balanced"], "normalizer": "none"},
}
SCALARS = {"positive_share", "hardest_percent_of_negatives", "easy_gradient", "hard_gradient"}


class Kept(LossPlots):
    """Keeps the sums."""

    def show(self, trainer, pl_module, step):
        self.kept = self._sums


def observed(loss, parts, dtype=torch.float32, counts=(2, 0, 3)):
    """What the callback and autograd say of the same batch: sums, and the gradient of the classification term."""
    model = small_retinanet(NUM_CLASSES + {"softmax": 1, "seesaw": 2}.get(loss, 0))
    criterion = patch(model, loss, class_counts=COUNTS, **parts)
    callback, seen = Kept(1), {}
    trainer = FakeTrainer(".")
    module = nn.Sequential(model)
    callback.on_train_start(trainer, module)
    callback.on_train_batch_start(trainer, module, None, 0)

    def keep(samples, values, weights):
        seen["samples"], seen["values"], seen["weights"] = samples, values, weights
        samples.logits.retain_grad()

    criterion.observers.append(keep)
    tower = model.head.classification_head
    tower.register_forward_hook(lambda module, inputs, output: output.to(dtype))
    terms = model(*random_batch(counts))
    callback.on_train_batch_end(trainer, module, None, None, 0)
    with torch.enable_grad():
        (terms["classification"] * (1024 if dtype == torch.float16 else 1)).backward()
    gradient = seen["samples"].logits.grad.double() / (1024 if dtype == torch.float16 else 1)
    return callback.kept, gradient, seen["samples"], seen["values"], seen["weights"]


def norms_of(samples):
    """|p - y| of each element, in float32: borders of bins are hit exactly by logits that are all equal."""
    logits = samples.score_logits(samples.logits.detach().float())
    own = torch.zeros_like(logits, dtype=torch.bool)
    own[samples.positives, samples.pos_labels] = True
    return torch.where(own, -logits, logits).sigmoid()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("loss", LOSSES)
def test_loss_plots__gradient_is_that_of_the_loss(loss, dtype):
    sums, gradient, samples, *_ = observed(loss, LOSSES[loss], dtype)
    norms, pull = norms_of(samples)[samples.valid], gradient.abs()[samples.valid].numpy()
    bins = (norms * NORM_BINS).long().clamp(max=NORM_BINS - 1).numpy()
    expected = np.bincount(bins.ravel(), pull[:, : bins.shape[1]].ravel(), NORM_BINS)
    expected += np.bincount(bins.max(1), pull[:, bins.shape[1] :].sum(1), NORM_BINS)
    tolerance = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 1e-2}[dtype]  # the last has 8 bits
    np.testing.assert_allclose(sums["after"], expected, rtol=tolerance, atol=1e-3 * tolerance * expected.max())
    assert sums["after"].sum() == pytest.approx(pull.sum(), rel=tolerance)
    np.testing.assert_allclose(sums["before"], np.bincount(bins.ravel(), norms.numpy().ravel(), NORM_BINS), rtol=1e-5)
    np.testing.assert_array_equal(sums["norm_counts"].sum(0), np.bincount(bins.ravel(), minlength=NORM_BINS))
    assert sums["norm_counts"][0].sum() == len(samples.positives)


@pytest.mark.parametrize("loss", LOSSES)
def test_loss_plots__shares_of_the_loss_add_up_to_the_term(loss):
    sums, _, samples, values, weights = observed(loss, LOSSES[loss])
    product = math.prod((w.classification for w in weights if w.classification is not None), start=torch.tensor(1.0))
    weighted = (values.classification * product * values.image_scales[samples.image_idxs]).detach()
    total = float(weighted.sum())
    for name in ("classes", "levels"):
        assert sums[name].sum() == pytest.approx(total, rel=1e-5)
    assert sums["losses"][1].sum() == pytest.approx(total, rel=1e-5)
    assert sums["losses"][0].sum(1).tolist() == [len(samples.positives), int((samples.labels == -1).sum())]
    assert sums["classes"][-1] == pytest.approx(float(weighted[samples.labels == -1].sum()), rel=1e-5)
    for label in range(NUM_CLASSES):
        assert sums["classes"][label] == pytest.approx(float(weighted[samples.labels == label].sum()), rel=1e-5)
    of_image = torch.arange(len(weighted)) % samples.anchors_per_image
    finest = weighted[(of_image < 8 * 8 * 4) & (samples.labels >= 0)].sum()
    assert sums["levels"][0, 0] == pytest.approx(float(finest), rel=1e-5)


def test_loss_plots__a_batch_without_objects_is_shown():
    sums, *_ = observed("focal", {}, counts=(0, 0))
    assert sums["norm_counts"][0].sum() == 0
    assert sums["classes"][:-1].sum() == 0
    assert sums["classes"][-1] > 0


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("loss", [*LOSSES, "swn"])
def test_loss_plots__training_is_the_same_to_the_last_bit(loss, precision, tmp_path):
    def weights(*callbacks):
        parts = {"weighters": ["swn"]} if loss == "swn" else LOSSES[loss]
        torch.manual_seed(0)
        module = SmallRetinaNet(NUM_CLASSES, loss="focal" if loss == "swn" else loss, **parts)
        module.criterion.receive_class_counts(COUNTS)
        fit(tmp_path, module, *callbacks, precision=precision, logger=CSVLogger(tmp_path))
        return module.state_dict()

    plain, watched = weights(), weights(LossPlots(1) if loss == "focal" else Kept(1))  # drawing takes its time
    for name, value in plain.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, watched[name]), name


@pytest.mark.parametrize("kind", ["LitRetinaNet", "SwapLoss"])
def test_loss_plots__every_nth_step_is_drawn_and_logged(kind, tmp_path):
    module, callbacks = (SmallRetinaNet(NUM_CLASSES), []) if kind == "LitRetinaNet" else (Foreign(), [SwapLoss("ghm")])
    fit(tmp_path, module, LossPlots(2), *callbacks, batches=5)
    assert sorted(path.name for path in tmp_path.glob("run/loss/*")) == ["step_000002.png", "step_000004.png"]
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = {int(row["step"]): row for row in csv.DictReader(file)}
    for step in (1, 3):
        shares = {name: float(rows[step][f"loss_pictures/{name}"]) for name in SCALARS}
        assert all(0 <= share <= 1 for share in shares.values())
    assert attached(module).criteria[""].observers == [] if kind == "LitRetinaNet" else True


def test_loss_plots__tensorboard_gets_images_and_numbers(tmp_path):
    fit(tmp_path, SmallRetinaNet(NUM_CLASSES), LossPlots(1, folder="x"), logger=TensorBoardLogger(tmp_path, "", "run"))
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    assert [event.step for event in events.Images("loss_pictures/picture")] == [0, 1, 2]
    for name in SCALARS:
        assert [event.step for event in events.Scalars(f"loss_pictures/{name}")] == [0, 1, 2]
    shown = events.Images("loss_pictures/picture")[1].encoded_image_string
    with Image.open(io.BytesIO(shown)) as image, Image.open(tmp_path / "run" / "x" / "step_000002.png") as file:
        assert image.size == file.size
        assert image.width == 1500


def test_loss_plots__a_step_of_several_batches_is_shown_once(tmp_path):
    fit(tmp_path, SmallRetinaNet(NUM_CLASSES), LossPlots(1), batches=4, accumulate_grad_batches=2)
    assert sorted(path.name for path in tmp_path.glob("run/loss/*")) == ["step_000001.png", "step_000002.png"]


def test_loss_plots__refuse_what_cannot_be_shown(tmp_path):
    with pytest.raises(UsageError, match="LossPlots: Foreign trains with RetinaNet's own loss"):
        fit(tmp_path, Foreign(), LossPlots())
    with pytest.raises(UsageError, match="LossPlots: every_n_steps must be at least 1, not 0"):
        LossPlots(0)


class Summed(LossPlots):
    """Keeps the sums of all processes."""

    def show(self, trainer, pl_module, step):
        held = [sums for sums in Reduce().gather_objects(self._sums) if sums]
        self.summed = {name: sum(process[name] for process in held) for name in held[0]}
        super().show(trainer, pl_module, step)


def _run(rank, folder, halves, silent=False):
    """One step of a half of the batch; the second process computes no loss if asked to be silent."""
    module = nn.Sequential(small_retinanet())
    patch(module, "focal", normalizer="none" if silent else "batch")
    rows = []
    logger = SimpleNamespace(log_metrics=lambda metrics, step: rows.append((step, metrics)))
    images, targets = random_batch((2, 1, 0, 0))
    mine = slice(None) if halves is None else halves[rank]
    callback, batch = Summed(1), None if silent and rank == 1 else (images[mine], targets[mine])
    observed_step(callback, CollectiveTrainer(folder, rank, loggers=[logger]), module, batch)
    return rows, callback.summed


@pytest.mark.ddp
@pytest.mark.parametrize("cut", [1, 2])  # with 2 the second process holds images without objects alone
def test_loss_plots__two_processes_add_up_to_one(two_processes, cut, tmp_path):
    rows, expected = _run(0, str(tmp_path / "one"), None)
    first, second = two_processes(_run, str(tmp_path / "two"), (slice(0, cut), slice(cut, 4)))
    assert first[0] == second[0]
    assert first[0][0][1] == pytest.approx(rows[0][1], rel=1e-4)
    assert set(rows[0][1]) == {f"loss_pictures/{name}" for name in SCALARS}
    for name in ("norm_counts", "before", "after", "classes", "levels"):
        np.testing.assert_allclose(first[1][name], expected[name], rtol=1e-4, atol=1e-7)
    for name in ("losses", "entropies"):  # a value at a border of its bin may lie on either side
        np.testing.assert_allclose(first[1][name].sum(-1), expected[name].sum(-1), rtol=1e-4)
        shares = [hardest_share(sums[name][:, 1], 0.1) for sums in (first[1], expected)]
        assert shares[0] == pytest.approx(shares[1], rel=1e-3)
    assert [path.name for path in Path(tmp_path / "two").rglob("*.png")] == ["step_000001.png"]


@pytest.mark.ddp
def test_loss_plots__a_process_without_a_loss_waits_for_nothing(two_processes, tmp_path):
    first, second = two_processes(_run, str(tmp_path), None, True)
    assert first[0] == second[0]
    assert len(first[0]) == 1
