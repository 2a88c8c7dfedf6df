import os
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningModule

from lit_dense.core.errors import UsageError
from lit_dense.data import image_cache
from lit_dense.data.image_cache import GIB, DiskCache, RamCache, open_caches
from lit_dense.data.image_files import read_image
from tests.builders.coco_files import write_noise
from tests.builders.data_modules import data_module
from tests.builders.two_trainers import trainer_of

ONE = 3 * 30 * 40  # bytes of an image


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_noise(tmp_path, 6)
    write_noise(tmp_path, 3, "val")
    return tmp_path


@pytest.fixture
def data(folder):
    module = data_module(folder, "train", "val")
    module.setup("fit")
    return module.data["train"]


def cache_of(mode, data, capacity=GIB):
    return RamCache(data, capacity) if mode == "ram" else DiskCache(data, capacity, image_cache.cache_folder())


class Decoder:
    """Reads an image, and counts how often."""

    def __init__(self, data, index):
        self.path, self.calls = data.folder / data.file_names[index], 0

    def __call__(self):
        self.calls += 1
        return read_image(self.path)


@pytest.mark.parametrize("mode", ["ram", "disk"])
def test_read__equal_tensors_decoded_once(data, mode):
    cache = cache_of(mode, data)
    for index in range(len(data)):
        decode = Decoder(data, index)
        first, second = cache.read(index, decode), cache.read(index, decode)
        expected = read_image(decode.path)
        assert decode.calls == 1
        for image in (first, second):
            assert torch.equal(image, expected)
            assert (image.dtype, image.stride()) == (expected.dtype, expected.stride())
        second.zero_()  # a copy
        first.zero_()
        assert torch.equal(cache.read(index, decode), expected)


@pytest.mark.parametrize("mode", ["ram", "disk"])
@pytest.mark.parametrize(("capacity", "number"), [(0, 0), (ONE - 1, 0), (ONE, 1), (3 * ONE + 5, 3), (99 * ONE, 6)])
def test_read__within_the_bound(data, mode, capacity, number):
    cache = cache_of(mode, data, capacity)
    decoders = [Decoder(data, index) for index in range(len(data))]
    for _ in range(3):
        images = [cache.read(index, decode) for index, decode in enumerate(decoders)]
    assert [decode.calls for decode in decoders] == [1] * number + [3] * (6 - number)
    assert (cache.number, cache.used) == (number, number * ONE)
    assert all(torch.equal(image, read_image(one.path)) for image, one in zip(images, decoders, strict=True))


def test_ram_cache__workers_fill_and_read_it_together(folder):
    module = data_module(folder, "train", "val", cache="ram", num_workers=2, transforms=[])
    module.setup("fit")
    loader = module.train_dataloader()

    def epoch():
        return {t["image_id"]: i for images, targets in loader for i, t in zip(images, targets, strict=True)}

    first = epoch()
    shutil.rmtree(folder / "train")
    loader.sampler.set_epoch(1)  # the other worker reads most images
    second = epoch()
    assert len(first) == 6
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("mode", ["ram", "disk"])
@pytest.mark.parametrize("workers", [0, 2])
def test_data_module__the_same_batches(folder, mode, workers):
    def batches(**options):
        augmentation = [{"class_path": "mosaic", "init_args": {"p": 0.5}}]
        module = data_module(folder, "train", "val", augmentation=augmentation, num_workers=workers, **options)
        module.setup("fit")
        train, found = module.train_dataloader(), []
        for number in range(2):
            train.sampler.set_epoch(number)
            found += [image for images, _ in train for image in images]
        return found + [image for images, _ in module.val_dataloader() for image in images]

    for ours, theirs in zip(batches(cache=mode), batches(), strict=True):
        assert torch.equal(ours, theirs)


def test_disk_cache__a_later_run_reads_it_and_a_replaced_image_is_decoded(data):
    decode = Decoder(data, 0)
    cache_of("disk", data).read(0, decode)
    cache_of("disk", data).read(0, decode)
    assert decode.calls == 1
    shutil.copy(data.folder / data.file_names[1], decode.path)
    os.utime(decode.path, ns=(1, 1))
    assert torch.equal(cache_of("disk", data).read(0, decode), read_image(decode.path))
    assert decode.calls == 2
    cache_of("disk", replace(data, upright=~data.upright)).read(0, decode)
    assert decode.calls == 3


def test_disk_cache__a_damaged_file_is_decoded_again(data):
    cache, decode = cache_of("disk", data), Decoder(data, 0)
    cache.read(0, decode)
    cache.file(0).write_bytes(b"part")
    assert torch.equal(cache.read(0, decode), read_image(decode.path))
    assert torch.equal(cache.read(0, decode), read_image(decode.path))
    assert decode.calls == 2


def test_disk_cache__a_folder_that_cannot_be_written_costs_time_only(data, folder):
    (folder / "cache").write_text("a file")
    cache, decode = cache_of("disk", data), Decoder(data, 0)
    assert torch.equal(cache.read(0, decode), cache.read(0, decode))
    assert decode.calls == 2


def test_disk_cache__leaves_no_incomplete_file(data, monkeypatch):
    def full(*paths):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    cache_of("disk", data).read(0, Decoder(data, 0))
    assert not [file for file in image_cache.cache_folder().rglob("*") if file.is_file()]


def test_read__an_image_of_another_size_is_not_stored(data):
    for mode in ("ram", "disk"):
        cache = cache_of(mode, data)
        assert cache.read(0, lambda: torch.zeros(3, 8, 8, dtype=torch.uint8)).shape == (3, 8, 8)
        decode = Decoder(data, 0)
        cache.read(0, decode)
        assert decode.calls == 1


def test_open_caches__the_first_split_is_served_first(data, monkeypatch):
    lines = []
    monkeypatch.setattr(image_cache, "rank_zero_info", lines.append)
    caches = open_caches("ram", {"train": data, "val": data}, 8 * ONE / GIB)
    assert [cache.number for cache in caches.values()] == [6, 2]
    assert "8 of 12 decoded images, 0.00 of at most 0.00 GiB; the others are decoded each time" in lines[0]
    halves = open_caches("ram", {"train": data, "val": data}, 8 * ONE / GIB, processes=2)
    assert [cache.number for cache in halves.values()] == [4, 0]
    assert "per process" in lines[1]


def test_open_caches__by_default_half_of_what_is_free(data, monkeypatch):
    monkeypatch.setattr(image_cache, "_available_memory", lambda: 5 * ONE)
    assert open_caches("ram", {"train": data})["train"].number == 2
    monkeypatch.setattr(image_cache.shutil, "disk_usage", lambda folder: SimpleNamespace(free=7 * ONE))
    assert open_caches("disk", {"train": data})["train"].number == 3


def test_open_caches__the_bound_holds_for_the_folder(data):
    bound = 4 * ONE / GIB
    old = open_caches("disk", {"train": data}, bound)["train"]
    for index in range(6):
        old.read(index, Decoder(data, index))
    names = {old.file(index) for index in range(4)}
    for age, index in enumerate((2, 0, 1, 3)):
        os.utime(old.file(index), (age, age))
    kept = {old.file(1), old.file(3)}
    stored = image_cache.cache_folder()
    assert set(stored.glob("*/*.raw")) == names
    open_caches("disk", {"train": data.select([4, 5])}, bound)  # other images: the oldest two make room
    assert set(stored.glob("*/*.raw")) == kept
    open_caches("disk", {"train": data.select([1, 3])}, 2 * ONE / GIB)
    assert set(stored.glob("*/*.raw")) == kept


def test_data_module__only_training_uses_a_cache(folder):
    module = data_module(folder, "train", "val", cache="ram")
    module.setup("validate")
    assert module.val_dataloader().dataset.cache is None
    module.setup("fit")
    assert module.val_dataloader().dataset.cache.number == 3
    assert module.train_dataloader().dataset.cache is module.train_dataloader().dataset.cache


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cache": "rom"}, "Did you mean|ram, disk"),
        ({"cache": "ram", "cache_gib": -1}, "cache_gib must be at least 0, not -1"),
    ],
)
def test_data_module__wrong_caches(folder, options, message):
    with pytest.raises(UsageError, match=message):
        data_module(folder, **options)


class Pixels(LightningModule):
    """Notes what it sees of each image in training and validation, and trains on the mean of the images."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def note(self, stage, batch):
        images, targets = batch
        for image, target in zip(images, targets, strict=True):
            boxes = target["boxes"].tolist(), target["labels"].tolist()
            self.seen.append((stage, self.current_epoch, target["image_id"], int(image.long().sum()), *boxes))

    def training_step(self, batch, batch_idx):
        self.note("train", batch)
        return (self.weight - torch.stack([image.double().mean() for image in batch[0]]).mean() / 255) ** 2

    def validation_step(self, batch, batch_idx):
        self.note("val", batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def trained(rank, folder, cache_folder, cache):
    """What one process, or one of two, sees in two epochs, and the weight after training."""
    with pytest.MonkeyPatch.context() as patched, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patched.setenv("XDG_CACHE_HOME", cache_folder)
        chosen = ["mosaic", {"class_path": "copy_paste", "init_args": {"p": 1.0}}]
        size = 2 if rank is None else 1
        data = data_module(Path(folder), "train", "val", cache=cache, batch_size=size, augmentation=chosen)
        module = Pixels()
        trainer_of(rank, folder, max_epochs=2, num_sanity_val_steps=0, log_every_n_steps=99).fit(module, data)
    return module.seen, module.weight.item()


@pytest.mark.ddp
@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_cache__two_processes_see_and_train_what_one_does_without(two_processes, folder, cache):
    expected, weight = trained(None, str(folder), str(folder / "none"), None)
    (first, its_weight), (second, other_weight) = two_processes(trained, str(folder), str(folder / cache), cache)
    together = {repr(sample) for sample in (*first, *second)}
    assert together == {repr(sample) for sample in expected}
    assert its_weight == other_weight == pytest.approx(weight)
    if cache == "disk":
        assert len(list((folder / "disk").rglob("*.raw"))) == 9


def test_open_caches__a_folder_that_cannot_be_written_is_told(data, folder):
    (folder / "cache").write_text("a file")
    with pytest.warns(UserWarning, match="cache/lit_dense/images cannot be written.*decoded each time.*XDG_CACHE_HOME"):
        open_caches("disk", {"train": data})
