"""A resumed run draws the random numbers that the uninterrupted run would have drawn."""

import os

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_dense import LitDetector
from tests.builders.coco_files import write_noise
from tests.builders.data_modules import data_module
from tests.builders.trainers import trainer_in
from tests.builders.two_trainers import trainer_of


def run(folder, checkpoints, steps, seed, ckpt_path=None, rank=None, **options):
    """The module after training with images of two sizes, or with sampled proposals."""
    torch.manual_seed(0)
    module = LitDetector(num_classes=3, backbone="tiny", fpn_channels=32, optimizer="sgd", lr=1e-2, **options)
    torch.manual_seed(seed)
    saver = ModelCheckpoint(checkpoints, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    limits = {"max_epochs": -1, "max_steps": steps, "limit_val_batches": 0}
    trainer_of(rank, checkpoints, saver, **limits).fit(
        module, data_module(folder, "train", seed=3), ckpt_path=ckpt_path
    )
    return module.state_dict()


@pytest.mark.parametrize(
    "options",
    [
        {"detector": "retinanet", "head_convs": 1, "min_size": [48, 64, 80], "max_size": 96},
        pytest.param({"detector": "faster_rcnn", "min_size": 128, "max_size": 128}, marks=pytest.mark.slow),
    ],
    ids=["min_size", "proposals"],
)
@pytest.mark.parametrize("stop", [3, 4])  # in the middle of an epoch, and at its end
def test_random_states__a_resumed_run_equals_the_uninterrupted_one(options, stop, tmp_path):
    write_noise(tmp_path, 9)
    whole = run(tmp_path, tmp_path / "whole", 7, seed=1, **options)
    resumed = run(tmp_path, tmp_path / "rest", 7, 2, tmp_path / "whole" / f"step={stop}.ckpt", **options)
    assert resumed.pop("criterion._extra_state") == whole.pop("criterion._extra_state")  # also at the end of an epoch
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, rtol=0, atol=0, msg=name)


def _resumed_in_process(rank, images, folder):
    """The weights, and the next random number, of an uninterrupted and of a resumed run."""
    os.environ.pop("PL_GLOBAL_SEED", None)  # of an earlier test: Lightning would give both processes this seed
    options = {"rank": rank, "head_convs": 1, "min_size": [48, 64, 80], "max_size": 96}
    states, numbers = [], []
    for name, seed, ckpt_path in (("whole", 1, None), ("rest", 2, folder / "whole" / "step=2.ckpt")):
        states.append(run(images, folder / name, 4, 10 * seed + rank, ckpt_path, **options))
        numbers.append(torch.rand(()))
    return states, numbers


@pytest.mark.ddp
def test_random_states__each_of_two_processes_resumes_with_its_own(two_processes, tmp_path):
    write_noise(tmp_path, 9)
    answers = two_processes(_resumed_in_process, tmp_path, tmp_path)
    for states, (whole, resumed) in answers:
        assert whole == resumed
        torch.testing.assert_close(states[1], states[0], rtol=0, atol=0)
    assert answers[0][1][0] != answers[1][1][0]  # the processes draw different numbers


def test_random_states__a_new_run_from_the_weights_keeps_its_seed(tmp_path):
    write_noise(tmp_path, 9)
    options = {"head_convs": 1, "min_size": [48, 64, 80], "max_size": 96}
    run(tmp_path, tmp_path / "whole", 2, seed=1, **options)
    module = LitDetector.load_from_checkpoint(tmp_path / "whole" / "step=2.ckpt")
    trainer = trainer_in(tmp_path, max_steps=1, limit_val_batches=0)
    torch.manual_seed(5)
    first = torch.get_rng_state()
    seen = []
    module.on_train_epoch_start = lambda: seen.append(torch.get_rng_state())
    trainer.fit(module, data_module(tmp_path, "train", seed=3))
    assert torch.equal(seen[0], first)
