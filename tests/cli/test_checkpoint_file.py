"""Files that are given as a checkpoint and are none."""

import gzip
import json
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lit_dense.cli.checkpoint_file import check_checkpoint
from lit_dense.core.errors import UsageError
from tests.builders.detectors import small_retinanet

STATE = {
    "model.head.weight": torch.arange(6.0),
    "model.head.bias": torch.zeros(2),
    "criterion._extra_state": {"step": 1},
}
GOOD = {
    "pytorch-lightning_version": "2.6.0",
    "state_dict": STATE,
    "hyper_parameters": {"num_classes": 2},
    "lit_dense": {"criterion": {}, "categories": None},
}


def without(*names):
    return {name: value for name, value in GOOD.items() if name not in names}


def said_of(path):
    with pytest.raises(UsageError) as error:
        check_checkpoint(path)
    text = str(error.value)
    assert str(path) in text
    assert "\n" not in text
    return text


def saved(tmp_path, content, **arguments):
    path = tmp_path / "last.ckpt"
    torch.save(content, path, **arguments)
    return path


@pytest.mark.parametrize("new", [True, False])
def test_check_checkpoint__accepts_a_checkpoint(tmp_path, new):
    check_checkpoint(saved(tmp_path, GOOD, _use_new_zipfile_serialization=new))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (STATE, "only weights, a state_dict of 3 items. Load them in Python with model.load_state_dict"),
        (small_retinanet().state_dict(), "Load them in Python with model.model.load_state_dict"),
        ({"model": STATE, "epoch": 3}, "another library wrote it. It contains model, epoch."),
        (dict.fromkeys("abcdefghij", 1), "another library wrote it. It contains a, b, c, d, e, f, g, h."),
        ({"meta": {}, "state_dict": STATE}, "another library wrote it. It contains meta, state_dict."),
        ({}, "another library wrote it. It contains nothing."),
        (without("lit_dense"), "that of another LightningModule, with the arguments num_classes."),
        (without("lit_dense", "hyper_parameters"), "that of another LightningModule."),
        (without("state_dict"), "it contains no weights"),
        ({**GOOD, "state_dict": 5}, "it contains no weights"),
        (torch.zeros(3), "it contains a Tensor"),
        ([1, 2], "it contains a list"),
        (
            nn.Linear(1, 1),
            "it contains pickled objects (torch.nn.modules.linear.Linear), as written by torch.save(model)",
        ),
    ],
)
@pytest.mark.parametrize("new", [True, False])
def test_check_checkpoint__refuses_what_torch_saved_but_no_trainer(tmp_path, content, said, new):
    assert said in said_of(saved(tmp_path, content, _use_new_zipfile_serialization=new))


def write_safetensors(path):
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 4)


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda p: p.write_bytes(b""), "it is empty"),
        (write_safetensors, "it is a safetensors file"),
        (lambda p: p.write_bytes(pickle.dumps({"a": 1})), "it is damaged, truncated, or not a file of torch.save"),
        (lambda p: p.write_text("hello"), "it is not a file of torch.save"),
        (lambda p: p.write_text('  {"a": 1}'), "it is a text file"),
        (lambda p: p.write_text("<!DOCTYPE html>"), "it is a web page"),
        (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1"), "run git lfs pull"),
        (lambda p: p.write_bytes(gzip.compress(b"x")), "compressed with gzip"),
        (lambda p: torch.jit.save(torch.jit.script(nn.Linear(1, 1)), p), "it is a TorchScript archive"),
        (lambda p: np.savez(p.open("wb"), a=np.zeros(3)), "it is damaged, truncated, or not a file of torch.save"),
    ],
)
def test_check_checkpoint__refuses_files_of_other_kinds(tmp_path, write, said):
    path = tmp_path / "given.ckpt"
    write(path)
    assert said in said_of(path)


def test_check_checkpoint__refuses_a_checkpoint_cut_off_anywhere(tmp_path):
    whole = saved(tmp_path, GOOD).read_bytes()
    cut = tmp_path / "cut.ckpt"
    for length in {*range(0, len(whole), 37), *range(len(whole) - 40, len(whole))}:
        cut.write_bytes(whole[:length])
        assert "cannot be read as a checkpoint" in said_of(cut)


def test_check_checkpoint__refuses_a_checkpoint_with_damaged_bytes_anywhere(tmp_path):
    whole = saved(tmp_path, {**GOOD, "state_dict": {"model.a": torch.zeros(10_000)}}).read_bytes()
    broken, draw = tmp_path / "broken.ckpt", random.Random(0)
    for _ in range(40):
        start = draw.randrange(len(whole) - 300)
        noise = bytes(255 - byte for byte in whole[start : start + 300])
        broken.write_bytes(whole[:start] + noise + whole[start + 300 :])
        said_of(broken)


def test_check_checkpoint__a_folder_names_its_checkpoints_unless_a_strategy_wrote_it(tmp_path):
    (tmp_path / "b.ckpt").touch()
    (tmp_path / "a.ckpt").touch()
    (tmp_path / "c.txt").touch()
    assert "is a folder, not a checkpoint: give one of its files, a.ckpt, b.ckpt." in said_of(tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "give a file." in said_of(empty)
    (empty / ".metadata").touch()
    check_checkpoint(empty)


def test_check_checkpoint__accepts_a_checkpoint_of_lit_retinanet(tmp_path):
    from lightning.pytorch import Trainer

    from lit_dense import LitRetinaNet

    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(LitRetinaNet(2, "tiny", fpn_channels=16, head_convs=1))
    path = Path(tmp_path / "x.ckpt")
    trainer.save_checkpoint(path)
    check_checkpoint(path)
