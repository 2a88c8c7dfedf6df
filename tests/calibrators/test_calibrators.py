"""Calibrators: worked values, fits, and scores of detectors."""

import copy
import io
import pickle

import pytest
import torch
from torchvision.models.detection.roi_heads import RoIHeads

from lit_dense.calibrators import CALIBRATORS, Calibrator, StoredDetections
from lit_dense.calibrators.fracal_calibrator import FRACALCalibrator
from lit_dense.calibrators.logit_adjustment_calibrator import LogitAdjustmentCalibrator
from lit_dense.calibrators.temperature_calibrator import TemperatureCalibrator
from lit_dense.core.errors import UsageError
from lit_dense.criterion import Criterion
from lit_dense.detectors import patch, unpatch
from lit_dense.functional.fracal import fracal_logits, fracal_offsets, fractal_dimension
from lit_dense.functional.logit_adjustment import frequency_offsets
from tests.builders.detectors import COUNTS, random_batch, small_faster_rcnn, small_fcos, small_retinanet, small_ssd

MODELS = {"retinanet": small_retinanet, "fcos": small_fcos, "ssd": small_ssd, "faster_rcnn": small_faster_rcnn}


def ready(calibrator, num_classes):
    calibrator.prepare_all(num_classes)
    return calibrator


def close(values, expected):
    torch.testing.assert_close(torch.as_tensor(values).double(), torch.tensor(expected).double(), atol=2e-6, rtol=0)


def test_fracal__worked_values():
    frequencies, dimensions = torch.tensor([0.5, 0.1, 0.01]).double(), torch.tensor([1.8, 1.2, 1.0]).double()
    logits = torch.tensor([1.0, 0.0, -1.0]).double()
    offsets = fracal_offsets(frequencies, dimensions)
    close(offsets, [-0.176091 - 0.233318, 0.522879 + 0.118865, 1.522879 + 0.277227])
    close(fracal_logits(logits, offsets).sigmoid(), [0.470437, 0.327574, 0.185569])
    calibrator = ready(FRACALCalibrator(2.0, frequencies.tolist(), dimensions.tolist()), 3)
    close(calibrator(logits.expand(2, 3)).sigmoid()[1], [0.470437, 0.327574, 0.185569])


def test_fracal__uniform_classes_square_the_score():
    calibrator = ready(FRACALCalibrator(frequencies=[0.25] * 4), 4)
    logits = torch.linspace(-4, 4, 12).view(3, 4)
    torch.testing.assert_close(calibrator(logits).sigmoid(), logits.sigmoid() ** 2)
    extremes = calibrator(torch.tensor([[-1e4, 1e4, -torch.inf, 50.0]]))
    assert not extremes.isnan().any()
    assert extremes[0, 1].isfinite()


def test_fractal_dimension__worked_values():
    k = torch.arange(60).double()
    close(fractal_dimension(torch.stack([(k * 0.6180339887) % 1, (k * 0.7548776662) % 1], 1)), 1.8425861713)
    line = torch.stack([torch.arange(100) / 100, torch.full((100,), 0.3)], 1)
    close(fractal_dimension(line), 1.0)
    assert fractal_dimension(torch.rand(3, 2)) == 1.0
    assert fractal_dimension(torch.full((50, 2), 0.5)) == 1.0  # all in one place
    assert fractal_dimension(torch.ones(50, 2)) == 1.0  # on the border


def test_logit_adjustment__worked_values():
    counts = torch.tensor([70.0, 25.0, 5.0])
    close(frequency_offsets(counts), [1.222892, 0.193273, -1.416165])
    calibrator = ready(LogitAdjustmentCalibrator(0.5, counts.tolist()), 3)
    close(calibrator(torch.tensor([1.0, 0.5, 0.0])).sigmoid(), [0.595935, 0.599496, 0.669977])
    assert torch.equal(ready(LogitAdjustmentCalibrator(0.0, counts.tolist()), 3)(counts), counts)


def stored(logits, is_true, mean_ap=lambda calibrator: 0.0):
    return StoredDetections(
        logits=logits,
        columns=torch.zeros(len(logits), dtype=torch.int64),
        is_true=is_true,
        counts=torch.tensor([90.0, 9.0]),
        frequencies=torch.tensor([0.5, 0.1]),
        centres=[torch.cartesian_prod(torch.arange(8), torch.arange(8)) / 8, torch.rand(2, 2)],
        mean_ap=mean_ap,
    )


def test_temperature__finds_the_temperature_of_the_data():
    generator = torch.Generator().manual_seed(0)
    true_logits = 2 * torch.randn(200_000, generator=generator, dtype=torch.float64) - 1
    is_true = torch.rand(len(true_logits), generator=generator) < true_logits.sigmoid()
    fitted = TemperatureCalibrator().fitted(stored(3 * true_logits, is_true))
    assert fitted.temperature == pytest.approx(3, rel=0.02)
    assert TemperatureCalibrator(2.0).fitted(stored(true_logits[:0], is_true[:0])).temperature == 2
    with pytest.raises(UsageError, match="none of the 5 detections of the validation set is a true positive"):
        TemperatureCalibrator().fitted(stored(true_logits[:5], torch.zeros(5).bool()))


def test_logit_adjustment__takes_the_tau_of_largest_ap():
    data = stored(torch.zeros(4), torch.ones(4).bool(), lambda calibrator: -abs(calibrator.tau - 0.34))
    fitted = LogitAdjustmentCalibrator().fitted(data)
    assert (fitted.tau, fitted.counts.given) == (0.3, [90, 9])
    flat = LogitAdjustmentCalibrator().fitted(stored(torch.zeros(4), torch.ones(4).bool()))
    assert flat.tau == 0
    rounding = stored(torch.zeros(4), torch.ones(4).bool(), lambda calibrator: 0.3 + 1e-5 * calibrator.tau)
    assert LogitAdjustmentCalibrator().fitted(rounding).tau == 0


def test_fracal__large_power_is_finite():
    dimensions = torch.tensor([1.8, 1.2, 1.0]).double()
    offsets = fracal_offsets(torch.full((3,), 1 / 3).double(), dimensions, 1e4)
    assert offsets.isfinite().all()
    torch.testing.assert_close(offsets[0].item(), -torch.tensor(3.0).log10().item())


def test_fracal__takes_its_numbers_from_the_training_set():
    fitted = FRACALCalibrator().fitted(stored(torch.zeros(4), torch.ones(4).bool()))
    assert fitted.dimensions == [2.0, 1.0]
    torch.testing.assert_close(fitted.frequencies.values, torch.tensor([0.5, 0.1]))


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("temperature", {"temperature": 0}, "temperature: temperature must be at least"),
        ("logit_adjustment", {"tau": -1}, "logit_adjustment: tau must be at least 0"),
        ("logit_adjustment", {"counts": [1, -1]}, "counts must be numbers of at least 0"),
        ("logit_adjustment", {"tau": float("inf")}, "logit_adjustment: tau must be finite and at least 0"),
        ("logit_adjustment", {"counts": [1, float("inf")]}, r"of at least 0, not inf \(class 1\)"),
        ("logit_adjustment", {"counts": 3}, "counts must be a list of numbers, one for each class, not 3"),
        ("logit_adjustment", {"counts": "12"}, "counts must be a list of numbers, one for each class, not '12'"),
        ("logit_adjustment", {"counts": [[1, 2]]}, "counts must be a list of numbers"),
        ("fracal", {"dimensions": [3.0]}, r"fracal: dimensions \(class 0\) must be in \[1, 2\]"),
        ("fracal", {"dimensions": 3}, "fracal: dimensions must be a list of numbers"),
        ("fracal", {"frequencies": [2, 0.1]}, r"frequencies must be numbers of at least 0 and at most 1, not 2.0"),
    ],
)
def test_calibrators__arguments_out_of_range_are_named(name, arguments, said):
    with pytest.raises(UsageError, match=said):
        CALIBRATORS.build({"class_path": name, "init_args": arguments})
    with pytest.raises(UsageError, match="dimensions has 2 numbers, but the head has 3"):
        ready(FRACALCalibrator(dimensions=[1.0, 2.0]), 3)


@pytest.mark.parametrize("name", sorted(CALIBRATORS.points))
def test_calibrators__survive_copies_checkpoints_and_spec(name):
    criterion = Criterion("focal", class_counts=COUNTS, calibrator=name)
    criterion.prepare(4)
    logits = torch.randn(3, 4)
    expected = criterion.score_logits(logits)
    for twin in (copy.deepcopy(criterion), pickle.loads(pickle.dumps(criterion))):
        assert torch.equal(twin.score_logits(logits), expected)
    file = io.BytesIO()
    torch.save({"spec": criterion.spec, "state": criterion.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    restored = Criterion(**saved["spec"])
    restored.prepare(4)
    restored.load_state_dict(saved["state"])
    assert torch.equal(restored.score_logits(logits), expected)
    assert restored.score_logits(logits.half()).isfinite().all()


def test_score_logits__needs_class_counts():
    criterion = Criterion("focal", calibrator="logit_adjustment")
    criterion.prepare(2)
    with pytest.raises(UsageError, match="'logit_adjustment' needs to know how often each class occurs"):
        criterion.score_logits(torch.zeros(1, 2))


class Halved(Calibrator):
    """Halves each score."""

    def calibrated(self, logits, columns):
        return (logits.sigmoid() / 2).logit()

    def fitted(self, stored):
        return self


@pytest.mark.parametrize("loss", [None, "focal"])
@pytest.mark.parametrize("detector", MODELS)
def test_patch__calibrated_scores_in_evaluation_and_the_same_training(detector, loss):
    plain, calibrated = (MODELS[detector]().eval() for _ in range(2))
    patch(plain, loss=loss)
    patch(calibrated, loss=loss, calibrator=Halved())
    for model in (plain, calibrated):
        holder = getattr(model, "roi_heads", model)
        holder.score_thresh = 1e-5
        holder.detections_per_img = 10_000
        holder.nms_thresh = 1.0
        if hasattr(model, "topk_candidates"):
            model.topk_candidates = 10_000
    images, _ = random_batch((1,))
    with torch.no_grad():
        first, second = plain(images)[0], calibrated(images)[0]
    factor = 0.5**0.5 if detector == "fcos" else 0.5
    order = first["scores"] * factor > 2e-5
    best = second["scores"] > 2e-5
    torch.testing.assert_close(
        second["scores"][best].sort().values, first["scores"][order].sort().values * factor, rtol=1e-3, atol=1e-6
    )
    unpatch(calibrated)


def test_patch__training_does_not_depend_on_the_calibrator():
    results = []
    for calibrator in (None, Halved()):
        model = small_retinanet()
        patch(model, calibrator=calibrator)
        results.append(torch.stack([*model(*random_batch()).values()]))
    assert torch.equal(*results)


def test_patch__detectors_that_compute_their_scores_refuse(monkeypatch):
    with pytest.raises(UsageError, match=r"FasterRCNN computes its scores itself \(stage 'rpn'\), and Halved cannot"):
        patch(small_faster_rcnn(), loss="bce", calibrator=Halved(), stage="rpn")

    class Own(RoIHeads):
        def postprocess_detections(self, *arguments):
            return super().postprocess_detections(*arguments)

    model = small_faster_rcnn()
    model.roi_heads.__class__ = Own
    with pytest.raises(UsageError, match="Own has its own postprocess_detections, whose scores Halved cannot change"):
        patch(model, calibrator=Halved())
