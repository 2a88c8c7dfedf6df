"""A run that was interrupted in the middle of an epoch sees what the uninterrupted one sees."""

import functools

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint

from tests.builders.coco_files import write_noise
from tests.builders.data_modules import data_module
from tests.builders.lit_modules import Recorder, record
from tests.builders.trainers import trainer_in

EPOCHS, BATCHES = 3, 4  # 9 images in batches of 2: four batches, one image left out


class Broken(Recorder):
    """Fails in the step after so many steps."""

    def on_train_batch_start(self, batch, batch_idx):
        if len(self.seen) == self.stop_after:
            raise RuntimeError("broken batch")


def fit(folder, checkpoints, *arguments, **options):
    """What a run sees, and its checkpoints, oldest first."""
    model = fitted(folder, checkpoints, *arguments, **options)
    return model.seen, sorted(checkpoints.glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)


def fitted(folder, checkpoints, stop_after=None, ckpt_path=None, every=1000, workers=0, batch_size=2, **options):
    """The module of a run."""
    data = data_module(folder, "train", "val", batch_size=batch_size, num_workers=workers, seed=3)
    return record(data, checkpoints, stop_after, ckpt_path, every, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("coco")
    write_noise(folder, 9)
    write_noise(folder, 3, "val")
    return folder


@pytest.fixture
def run(folder, tmp_path):
    return functools.partial(fit, folder, tmp_path)


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    seen, _ = fit(folder, tmp_path_factory.mktemp("whole"))
    assert [(epoch, batch) for epoch, batch, *_ in seen] == [(e, b) for e in range(EPOCHS) for b in range(BATCHES)]
    assert len({str(step) for step in seen}) == EPOCHS * BATCHES
    return seen


@pytest.mark.filterwarnings("error:You're resuming from a checkpoint")
@pytest.mark.parametrize(("stop_after", "every", "workers"), [(7, 2, 0), (7, 2, 2), (5, 1, 0), (3, 1, 0)])
def test_resume__in_the_middle_of_an_epoch(run, whole, stop_after, every, workers):
    _, checkpoints = run(stop_after, every=every, workers=workers)
    done = stop_after // every * every
    seen, _ = run(ckpt_path=checkpoints[-1], workers=workers)
    assert seen == whole[done:]


@pytest.mark.parametrize("stop_after", [3, 5])
def test_resume__with_the_data_module_of_the_interrupted_run(folder, tmp_path, whole, stop_after):
    data = data_module(folder, "train", "val", seed=3)
    record(data, tmp_path, stop_after)
    last = max(tmp_path.glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    assert record(data, tmp_path / "again", ckpt_path=last).seen == whole[stop_after:]


@pytest.mark.parametrize("evaluate", ["validate", "predict"])
@pytest.mark.parametrize("step", [2, 4])
def test_coco_data_module__a_new_run_after_an_evaluation_with_a_checkpoint(folder, tmp_path, whole, evaluate, step):
    record(data_module(folder, "train", "val", seed=3), tmp_path, max_epochs=1)
    data = data_module(folder, "train", "val", seed=3, predict=folder / "val")
    getattr(trainer_in(tmp_path), evaluate)(Recorder(), data, ckpt_path=tmp_path / f"step={step}.ckpt")
    assert record(data, tmp_path / "new").seen == whole


def test_resume__from_a_checkpoint_that_an_exception_wrote(folder, tmp_path, whole):
    saver = ModelCheckpoint(tmp_path, filename="exception", save_on_exception=True)
    with pytest.raises(RuntimeError, match="broken batch"):
        trainer_in(tmp_path, saver, max_epochs=EPOCHS).fit(Broken(6), data_module(folder, "train", "val", seed=3))
    data = data_module(folder, "train", "val", seed=3)
    assert record(data, tmp_path / "again", ckpt_path=tmp_path / "exception.ckpt").seen == whole[6:]


@pytest.mark.parametrize(("batch_size", "lengths"), [(1, [7, 9]), (3, [2, 3]), (4, [1, 2])])
def test_resume__with_another_batch_size(run, folder, tmp_path, whole, batch_size, lengths):
    _, checkpoints = run(5, every=1)
    model = fitted(folder, tmp_path, ckpt_path=checkpoints[-1], batch_size=batch_size)
    assert [[epoch for epoch, *_ in model.seen].count(number) for number in (1, 2)] == lengths
    assert model.validated == [lengths[0], sum(lengths)]
    (before,) = (images for epoch, batch, images, *_ in whole if (epoch, batch) == (1, 0))
    follow = [image for epoch, _, images, *_ in model.seen if epoch == 1 for image in images]
    assert len(follow) == len(set(follow)) == 7 // batch_size * batch_size
    assert not set(before) & set(follow)
    sums = dict(
        pair for epoch, _, images, totals, _ in whole if epoch == 1 for pair in zip(images, totals, strict=True)
    )
    for epoch, _, images, totals, _ in model.seen:
        assert epoch != 1 or all(sums.get(i, total) == total for i, total in zip(images, totals, strict=True))


@pytest.mark.parametrize("stop_after", [4, 8])
def test_resume__from_the_last_batch_of_an_epoch(run, whole, stop_after):
    _, checkpoints = run(stop_after, every=4)
    seen, _ = run(ckpt_path=checkpoints[-1])
    assert seen == whole[stop_after:]


def test_resume__from_the_end_of_an_epoch(run, whole):
    _, checkpoints = run(max_epochs=2, every=None, workers=2)
    seen, _ = run(ckpt_path=checkpoints[-1], workers=2)
    assert seen == whole[2 * BATCHES :]


def test_resume__with_a_limit_of_steps_and_validation_within_epochs(run, whole):
    options = {"max_epochs": -1, "max_steps": EPOCHS * BATCHES, "val_check_interval": 2}
    _, checkpoints = run(6, every=1, **options)
    seen, _ = run(ckpt_path=checkpoints[-1], **options)
    assert seen == whole[6:]


def test_coco_data_module__workers_change_nothing(run, whole):
    seen, _ = run(workers=2)
    assert seen == whole


def test_coco_data_module__a_limited_epoch_is_the_beginning_of_the_whole(run, whole):
    seen, _ = run(limit_train_batches=2)
    assert seen == [step for step in whole if step[1] < 2]


def test_coco_data_module__overfitting_with_lightnings_own_sampler(run):
    seen, _ = run(overfit_batches=2)
    assert [images for _, _, images, *_ in seen] == [[1, 2], [3, 4]] * EPOCHS
