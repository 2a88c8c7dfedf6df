import copy
import pickle
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import lit_dense
from lit_dense.assigners import Assigner
from lit_dense.core.errors import UsageError
from lit_dense.detectors import attached, find_detector, patch, unpatch
from lit_dense.detectors.attach import build_criterion
from lit_dense.functional import matching
from lit_dense.normalizers import ImageNormalizer
from lit_dense.testing.host_sync import host_reads
from tests.builders.collectives import counted_collectives, no_collectives
from tests.builders.detectors import COUNTS, NUM_CLASSES, gradients, padded_batch, random_batch, small_retinanet
from tests.builders.samples import seen_by


@pytest.mark.parametrize("box_loss", ["l1", "smooth_l1", "giou"])
@pytest.mark.parametrize("counts", [(2, 0, 5), (0, 0), (1,), (3, 3)])
def test_patch__focal_reproduces_torchvision(box_loss, counts):
    stock, patched = small_retinanet(box_loss=box_loss), small_retinanet(box_loss=box_loss)
    patch(
        patched,
        loss="focal",
        box_loss={"class_path": box_loss, "init_args": {"beta": 1.0}} if box_loss == "smooth_l1" else None,
    )
    images, targets = random_batch(counts)
    for model in (stock, patched):
        terms = model(images, targets)
        sum(terms.values()).backward()
    expected, got = stock(images, targets), patched(images, targets)
    assert list(got) == ["classification", "bbox_regression"]
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(gradients(patched), gradients(stock), rtol=1e-4, atol=1e-7)


def test_patch__everything_but_the_loss_stays():
    stock, patched = small_retinanet(), small_retinanet()
    patch(patched, "bce")
    assert list(patched.state_dict()) == list(stock.state_dict())
    images, _ = random_batch()
    expected, got = stock.eval()(images), patched.eval()(images)
    for a, b in zip(expected, got, strict=True):
        assert all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_patch__copies_have_a_loss_of_their_own(copied):
    model = small_retinanet()
    patch(model, "focal", normalizer="ema")
    clone = copied(model)
    batch = random_batch()
    torch.testing.assert_close(clone(*batch), model(*batch))
    clone(*batch)
    assert attached(clone).criteria[""].step == attached(model).criteria[""].step + 1
    unpatch(clone)
    assert attached(model) is not None


def test_unpatch__gives_the_stock_model_back():
    stock, model = small_retinanet(), small_retinanet()
    patch(model, "bce")
    patch(model, "focal", normalizer="batch")  # again: in place of the first
    unpatch(model)
    unpatch(model)
    assert type(model.head) is type(stock.head)
    assert not model.anchor_generator._forward_pre_hooks
    batch = random_batch()
    torch.testing.assert_close(model(*batch), stock(*batch))
    torch.jit.script(model)  # export is torchvision's own again


def test_unpatch__towers_that_the_host_replaces_stay_replaced():
    model = small_retinanet()
    patch(model, "focal")
    tower = small_retinanet(num_classes=2).head.classification_head
    model.head.classification_head = tower
    images, targets = random_batch(num_classes=2)
    model(images, targets)["classification"].backward()
    unpatch(model)
    assert model.head.classification_head is tower


def test_find_detector__finds_the_model_inside_any_module():
    inner = small_retinanet()
    outer = nn.ModuleDict({"net": nn.ModuleDict({"detector": inner})})
    assert find_detector(outer).detector is inner
    with pytest.raises(
        ValueError, match=r"ModuleDict contains 2 detectors: a \(RetinaNet\), b \(RetinaNet\)\. Pass one"
    ):
        patch(nn.ModuleDict({"a": small_retinanet(), "b": small_retinanet()}))
    with pytest.raises(ValueError, match=r"contains no detector that lit_dense knows .*It contains conv: Conv2d"):
        patch(nn.ModuleDict({"conv": nn.Conv2d(1, 1, 1)}))


def test_patch__labels_without_a_column_are_named():
    model = small_retinanet(num_classes=3)
    patch(model)
    images, targets = random_batch((3,), num_classes=3)
    targets[0]["labels"] = torch.tensor([1, 2, 3])
    with pytest.raises(ValueError, match=r"from 1 to 3, but the head has 3 classes.*subtract 1"):
        model(images, targets)


def test_patch__levels_and_padding_are_known():
    model = small_retinanet()
    patch(model)
    seen = seen_by(attached(model).criteria[""])
    model(*padded_batch())
    samples = seen[0]
    assert samples.level_idxs.bincount().tolist() == [2 * 64 * 4, 2 * 16 * 4]
    assert not samples.in_padding[samples.image_idxs == 0].any()
    padded = samples.in_padding[samples.image_idxs == 1]
    assert 0.4 < padded.float().mean() < 0.6
    assert samples.labels.max() < samples.num_classes
    assert torch.equal(samples.pos_image_idxs, samples.image_idxs[samples.positives])


def test_patch__a_model_that_cannot_be_trained_is_refused_and_unchanged():
    model = small_retinanet()
    with pytest.raises(UsageError, match=r"eql.*counts"):
        patch(model, "eql")
    assert attached(model) is None
    assert "compute_loss" not in vars(model)


@pytest.mark.gpu
@pytest.mark.parametrize("box_loss", ["l1", "giou"])
def test_patch__losses_on_a_gpu_are_those_of_the_cpu(box_loss):
    on_cpu, on_gpu = small_retinanet(), small_retinanet().cuda()
    images, targets = random_batch()
    moved = [{k: v.cuda() if isinstance(v, torch.Tensor) else v for k, v in t.items()} for t in targets]
    expected, got = {}, {}
    for model, terms, batch in (
        (on_cpu, expected, (images, targets)),
        (on_gpu, got, ([i.cuda() for i in images], moved)),
    ):
        patch(model, "focal", box_loss, normalizer="ema")
        terms |= model(*batch)
    for name in expected:
        torch.testing.assert_close(got[name].cpu(), expected[name], rtol=1e-3, atol=1e-5)


def test_patch__a_loss_with_columns_of_its_own_takes_the_last_ones():
    model = small_retinanet(5)
    criterion = patch(model, "softmax")
    assert criterion.num_classes == 4
    images, targets = random_batch()
    assert model(images, targets)["classification"].isfinite()
    found = model.eval()(images)
    assert max(d["labels"].max() for d in found if len(d["labels"])) < 4
    with pytest.raises(UsageError, match=r"SeesawLoss has 2 columns.*has only 2: build the model with num_classes=4"):
        patch(small_retinanet(2), "seesaw")


def test_prior__of_a_model_that_exists():
    model = small_retinanet()
    before = model.head.classification_head.cls_logits.bias.clone()
    patch(model, "efl")
    assert torch.equal(model.head.classification_head.cls_logits.bias, before)
    patch(model, "efl", prior=0.001)
    torch.testing.assert_close(model.head.classification_head.cls_logits.bias, torch.full((16,), -6.906755))
    with pytest.raises(UsageError, match="prior must be in"):
        patch(model, "efl", prior=1.5)


def reads_of_a_step(model, batch):
    """Where the host waits in a training step, and of these what is this package's."""
    reads = host_reads(lambda: sum(model(*batch).values()).backward())
    return len(reads), [line for line in reads if str(Path(lit_dense.__file__).parent) in line]


@pytest.mark.fast_paths
@pytest.mark.parametrize("weighters", [[], ["pisa"], ["swn"]], ids=str)
def test_patch__synchronises_less_often_than_torchvision_and_no_more_for_a_larger_batch(weighters, monkeypatch):
    monkeypatch.setattr(matching, "FEW_PAIRS", 2**40)  # the way of a device
    stock, patched = small_retinanet(), small_retinanet()
    patch(patched, "focal", weighters=weighters)
    small, large = random_batch((2, 0, 5)), random_batch((2, 0, 5, 1, 3, 4))
    patched(*small)  # the values of the first batch are checked
    number, ours = reads_of_a_step(patched, large)
    assert reads_of_a_step(patched, small)[1] == ours
    assert len(ours) == 3  # labels are checked, positives found, and on the processor alone terms looked at
    assert number < reads_of_a_step(stock, large)[0] * 0.6


@pytest.mark.gpu
@pytest.mark.fast_paths
@pytest.mark.parametrize("weighters", [[], ["pisa"], ["swn"]], ids=str)
def test_patch__synchronises_with_a_gpu_less_often_than_torchvision(weighters):
    waits = []
    for adopted in (False, True):
        model = small_retinanet().cuda()
        if adopted:
            patch(model, "focal", weighters=weighters)
        images, targets = random_batch()
        images = [i.cuda() for i in images]
        targets = [{k: v.cuda() if isinstance(v, torch.Tensor) else v for k, v in t.items()} for t in targets]
        sum(model(images, targets).values()).backward()
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            sum(model(images, targets).values()).backward()
            torch.cuda.set_sync_debug_mode("default")
        waits.append(sum("called a synchronizing" in str(w.message) for w in seen))
    assert waits[1] < waits[0] * 0.7


@pytest.mark.ddp
@pytest.mark.parametrize("parts", [{"loss": "ghm"}, {"loss": "seesaw", "normalizer": "batch"}, {"weighters": ["pisa"]}])
def test_patch__processes_may_evaluate_different_numbers_of_batches(two_processes, parts):
    assert two_processes(_evaluate, parts) == [1, 2]


def _evaluate(rank, parts):
    """As many batches as the process has; in training the same parts talk to the other process."""
    model = small_retinanet(NUM_CLASSES + (parts.get("loss") == "seesaw") * 2)
    patch(model, class_counts=COUNTS, **parts)
    images, targets = random_batch((2, 1))
    with counted_collectives() as calls:
        model(images, targets)
    assert sum(call.call_count for call in calls) > 0
    model.eval()
    batches = 0
    with torch.no_grad(), no_collectives():
        for _ in range(1 + rank):
            terms, _ = attached(model).losses_and_detections(images, targets)
            assert all(term.isfinite() for term in terms.values())
            batches += 1
    return batches


@pytest.mark.parametrize("wrapped", [False, True])
def test_torchscript__is_refused_with_the_alternative(wrapped):
    model = small_retinanet().eval()
    patch(model)
    with pytest.raises(
        UsageError, match=r"call lit_dense.unpatch\(model\) before, which keeps the weights, or use torch"
    ):
        torch.jit.script(nn.Sequential(model) if wrapped else model)
    unpatch(model)
    assert torch.jit.script(model) is not None


def test_torchscript__of_a_loss_with_columns_of_its_own_is_not_sent_to_unpatch():
    model = small_retinanet(5)
    patch(model, "softmax")
    with pytest.raises(UsageError) as error:
        torch.jit.script(model)
    assert "unpatch" not in str(error.value)
    assert "SoftmaxLoss has columns that only a patched model reads, so use torch.jit.trace" in str(error.value)


def test_patch__what_a_step_knows_reaches_the_loss():
    model = small_retinanet()
    criterion = patch(model, class_counts=COUNTS)
    criterion.step, criterion.epoch = 7, 3
    seen = []
    criterion.observers.append(lambda samples, values, weights: seen.append(samples))
    model(*random_batch((2, 1)))
    (samples,) = seen
    assert (samples.step, samples.epoch, samples.class_counts) == (7, 3, COUNTS)
    assert samples.reduce.enabled
    assert criterion.step == 8


def test_patch__evaluation_sums_over_no_processes():
    model, seen = small_retinanet(), []
    criterion = patch(model)
    criterion.loss.register_forward_pre_hook(lambda loss, args: seen.append(args[2].reduce.enabled))
    images, targets = random_batch((2, 1))
    with torch.no_grad():
        model(images, targets)
    model(images, targets)
    assert seen == [False, True]


def test_assigner__matches_only_images_with_objects():
    class Nothing(Assigner):
        def forward(self, image):
            asked.append((len(image.gt_boxes), image.geometry is not None))
            return torch.full((len(image.anchors),), -1)

    model, asked = small_retinanet(), []
    patch(model, assigner=Nothing())
    model(*random_batch((2, 0, 1)))
    assert asked == [(2, True), (1, True)]


def test_assigner__an_image_without_objects_is_background():
    class First(Assigner):
        def forward(self, image):
            return torch.zeros(len(image.anchors), dtype=torch.long)

    model, seen = small_retinanet(), []
    patch(model, assigner=First()).observers.append(lambda samples, values, weights: seen.append(samples.matched_idxs))
    model(*random_batch((1, 0)))
    with_object, without = seen[0].chunk(2)
    assert (with_object == 0).all()
    assert (without == -1).all()


def test_image_sizes__are_heights_and_widths():
    model = small_retinanet()
    patch(model)
    images = SimpleNamespace(image_sizes=[(48, 64)])
    features = [torch.zeros(1, 8, 6, 9), torch.zeros(1, 8, 3, 5)]
    geometry = attached(model)._geometry_of(features, images)
    assert geometry.level_sizes == [(6, 9), (3, 5)]
    assert geometry.image_sizes == [(48, 64)]


def test_patch__a_second_patch_leaves_the_hooks_of_one_and_unpatch_none():
    def hooks(model):
        return [len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules()]

    model, once = small_retinanet(), small_retinanet()
    stock = hooks(model)
    unpatch(model)
    assert hooks(model) == stock  # nothing was patched
    patch(once)
    patch(model)
    criterion = patch(model, "bce")
    assert hooks(model) == hooks(once)
    assert attached(model).criteria[""] is criterion
    unpatch(model)
    assert hooks(model) == stock


def test_patch__training_has_all_columns_and_evaluation_one_for_each_class():
    model = small_retinanet(5)
    patch(model, "softmax")
    features = [torch.rand(1, 8, 8, 8), torch.rand(1, 8, 4, 4)]
    assert model.train().head(features)["cls_logits"].shape[-1] == 5
    assert model.eval().head(features)["cls_logits"].shape[-1] == 4


def test_build_criterion__an_adapter_without_normalizer_has_that_of_torchvisions_retinanet():
    assert isinstance(build_criterion({"loss": "focal", "box_loss": "l1"}, {}).normalizer, ImageNormalizer)
