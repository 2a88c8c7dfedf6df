"""Augmentations of several images in the data module, flip pairs, background images and the share of empty images."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.demos.boring_classes import BoringModel
from torchvision.transforms import v2

from lit_dense.cli.listing import list_names
from lit_dense.core.errors import UsageError
from lit_dense.data import CocoDataModule, EpochSampler, check
from lit_dense.data.resumable_loader import run_epochs
from tests.builders.coco_files import box_entry, image_entry, write_image, write_json, write_noise
from tests.builders.data_modules import data_module
from tests.builders.lit_modules import record

ALL = [
    {"class_path": "mosaic", "init_args": {"p": 0.6, "close_after": 0.5}},
    {"class_path": "mixup", "init_args": {"p": 0.6}},
    {"class_path": "copy_paste", "init_args": {"p": 0.6}},
    {"class_path": "rare_crop", "init_args": {"p": 0.6, "size": 32}},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("coco")
    write_noise(folder, 9)
    write_noise(folder, 3, "val")
    return folder


def loader(folder, rank=0, world_size=1, max_epochs=None, **options):
    data = data_module(folder, "train", "val", **{"augmentation": ALL, "seed": 3} | options)
    data.setup("fit")
    if max_epochs is not None:
        data.trainer = SimpleNamespace(
            **{"world_size": world_size, "global_rank": rank, "max_epochs": max_epochs, "max_steps": -1},
            **{"limit_train_batches": 1.0, "accumulate_grad_batches": 1},
        )
    return data.train_dataloader()


def seen(batches, epoch=0):
    batches.sampler.set_epoch(epoch)
    return [
        (target["image_id"], int(image.long().sum()), target["boxes"].tolist(), target["labels"].tolist())
        for images, targets in batches
        for image, target in zip(images, targets, strict=True)
    ]


def test_augmentation__changes_images_and_not_which_come(folder):
    plain, augmented = seen(loader(folder, augmentation=None)), seen(loader(folder))
    assert [sample[0] for sample in plain] == [sample[0] for sample in augmented]
    assert sum(a != b for a, b in zip(plain, augmented, strict=True)) >= 4
    assert augmented != seen(loader(folder), epoch=1)


def test_augmentation__without_one_samples_are_what_they_were(folder):
    never = [{"class_path": name, "init_args": {"p": 0.0}} for name in ("mosaic", "mixup", "copy_paste", "rare_crop")]
    assert seen(loader(folder, augmentation=never)) == seen(loader(folder, augmentation=None))


def test_augmentation__workers_have_no_effect(folder):
    alone, several = loader(folder, max_epochs=4), loader(folder, max_epochs=4, num_workers=2)
    for epoch in (0, 1, 2):
        assert seen(several, epoch) == seen(alone, epoch)


@pytest.mark.slow
def test_augmentation__workers_of_another_start_method_have_no_effect(folder):
    alone, spawned = loader(folder, max_epochs=4), loader(folder, max_epochs=4, num_workers=1, cache="ram")
    spawned.multiprocessing_context = "spawn"  # the default of Windows and macOS
    assert seen(spawned, 1) == seen(alone, 1)


@pytest.mark.parametrize("epoch", [0, 2])
def test_augmentation__processes_have_no_effect(folder, epoch):
    whole = seen(loader(folder, max_epochs=4), epoch)
    ranks = [seen(loader(folder, rank, 2, 4, batch_size=1), epoch) for rank in range(2)]
    assert [sample for pair in zip(*ranks, strict=True) for sample in pair] == whole


@pytest.mark.filterwarnings("error:You're resuming from a checkpoint")
@pytest.mark.parametrize("workers", [0, 2])
def test_augmentation__a_resumed_run_sees_the_same(folder, tmp_path, workers):
    def run(name, stop_after=None, checkpoint=None):
        data = data_module(folder, "train", "val", augmentation=ALL, seed=3, num_workers=workers)
        return record(data, tmp_path / name, stop_after, checkpoint, 1).seen

    whole = run("whole")
    run("part", 5)
    last = max((tmp_path / "part").glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    assert run("rest", None, last) == whole[5:]


def test_augmentation__closes_after_a_share_of_the_run(folder):
    mosaic = [{"class_path": "mosaic", "init_args": {"p": 1.0, "close_after": 0.5}}]
    options = {"augmentation": mosaic, "transforms": [], "num_workers": 1}
    batches = loader(folder, max_epochs=4, **options)
    plain = loader(folder, augmentation=None, transforms=[])
    same = [
        sum(a == b for a, b in zip(seen(batches, epoch), seen(plain, epoch), strict=True)) for epoch in (0, 1, 2, 3)
    ]
    assert same == [0, 0, 8, 8]  # the same workers all the time
    unlimited = loader(folder, max_epochs=-1, **options)
    assert not set(map(str, seen(unlimited, 3))) & set(map(str, seen(plain, 3)))


def test_epoch_sampler__progress_within_an_epoch():
    sampler = EpochSampler(range(4), partners=2, run_epochs=8)
    sampler.set_epoch(2)
    draws = list(sampler)
    assert [draw.progress for draw in draws] == [0.25, 0.28125, 0.3125, 0.34375]
    assert all(len(draw.partners) == 2 for draw in draws)
    assert [draw.progress for draw in EpochSampler(range(4))] == [0] * 4


def test_epoch_sampler__partners_are_drawn_from_the_order():
    sampler = EpochSampler(range(50), partners=20, order=lambda rng: np.array([7, 7, 7, 9]))
    assert {partner for draw in sampler for partner in draw.partners} == {7, 9}


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"max_epochs": 12}, 12),
        ({"max_epochs": -1, "max_steps": 50}, 5),
        ({"max_epochs": -1, "max_steps": 50, "accumulate_grad_batches": 2}, 10),
        ({"max_epochs": -1, "max_steps": 30, "accumulate_grad_batches": 4}, 10),  # three steps: the last of two batches
        ({"max_epochs": 3, "max_steps": 50}, 3),
        ({"max_epochs": -1, "max_steps": 50, "limit_train_batches": 5}, 10),
        ({"max_epochs": -1, "max_steps": 50, "limit_train_batches": 0.5}, 10),
        ({"max_epochs": -1}, None),
    ],
)
def test_run_epochs__length_of_a_run(limits, expected):
    given = {"max_epochs": None, "max_steps": -1, "accumulate_grad_batches": 1, "limit_train_batches": 1.0} | limits
    assert run_epochs(SimpleNamespace(**given), 10) == expected


def test_augmentation__mistakes_are_explained(folder):
    with pytest.raises(UsageError, match=r"Unknown augmentation 'mosiac'\. Did you mean 'mosaic'\?"):
        loader(folder, augmentation="mosiac")
    with pytest.raises(UsageError, match="'mosaic' has no argument 'probability'"):
        loader(folder, augmentation={"class_path": "mosaic", "init_args": {"probability": 1}})


def test_augmentation__names_on_the_command_line(folder):
    words = [line.split()[:2] for line in list_names().splitlines()]
    assert ["augmentations", "--data.augmentation=mosaic"] in words
    arguments = [f"--data.root={folder}", "--data.train_images=train", "--data.train_annotations=train.json"]
    arguments += ["--data.augmentation+=mosaic", "--data.augmentation.p=0.25", "--data.augmentation+=mixup"]
    data = LightningCLI(BoringModel, CocoDataModule, run=False, args=arguments, save_config_callback=None).datamodule
    assert [type(one).__name__ for one in data.augmentation] == ["Mosaic", "Mixup"]
    assert data.augmentation[0].p == 0.25


ARROWS = [{"id": 1, "name": "left"}, {"id": 2, "name": "stop"}, {"id": 3, "name": "right"}]


@pytest.fixture(scope="module")
def arrows(tmp_path_factory):
    """Four images, each with a left arrow and a stop sign."""
    folder = tmp_path_factory.mktemp("arrows")
    boxes = []
    for number in range(1, 5):
        write_image(folder / "train" / f"{number}.png", seed=number)
        boxes += [box_entry(2 * number, number, (2, 2, 10, 10), 1), box_entry(2 * number + 1, number, (20, 2, 9, 9), 2)]
    write_json(folder / "train.json", [image_entry(number) for number in range(1, 5)], boxes, ARROWS)
    return folder


FLIPS = [
    [v2.RandomHorizontalFlip(p=1)],
    [v2.Compose([v2.RandomHorizontalFlip(p=1)])],
    [v2.RandomApply([v2.RandomHorizontalFlip(p=1)], p=1)],
    [v2.RandomApply(torch.nn.ModuleList([v2.RandomHorizontalFlip(p=1)]), p=1)],
    [v2.RandomOrder([v2.RandomChoice([v2.RandomHorizontalFlip(p=1)])])],
]


@pytest.mark.parametrize("transforms", FLIPS, ids=["alone", "compose", "apply", "module list", "nested"])
def test_flip_pairs__a_flip_exchanges_classes(arrows, transforms):
    for pairs, expected in (([["right", "left"]], [2, 1]), (None, [0, 1])):
        data = data_module(arrows, "train", transforms=transforms, flip_pairs=pairs)
        data.setup("fit")
        for _, _, boxes, labels in seen(data.train_dataloader()):
            assert boxes == [[28, 2, 38, 12], [11, 2, 20, 11]]
            assert labels == expected


def test_flip_pairs__an_image_that_is_not_flipped_keeps_its_classes(arrows):
    data = data_module(arrows, "train", transforms=[v2.RandomHorizontalFlip()], flip_pairs=[["left", "right"]])
    data.setup("fit")
    samples = [sample for epoch in range(5) for sample in seen(data.train_dataloader(), epoch)]
    flipped = {(labels[0], boxes[0][0]) for _, _, boxes, labels in samples}
    assert flipped == {(0, 2.0), (2, 28.0)}
    without = data_module(arrows, "train", transforms=[v2.RandomHorizontalFlip()])
    without.setup("fit")
    assert [s[:3] for s in seen(without.train_dataloader())] == [s[:3] for s in samples[:4]]


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["left", "right"], r"flip_pairs is a list of pairs of class names.*not 'left'"),
        ([["left", "left"]], "flip_pairs is a list of pairs"),
        ([["left", "right"], ["right", "stop"]], "has the class 'right' in two pairs"),
        ([["left", "rigth"]], "the data has no class of the name 'rigth'. Did you mean 'right'"),
    ],
)
def test_flip_pairs__mistakes_are_explained(arrows, pairs, message):
    with pytest.raises(UsageError, match=message):
        data_module(arrows, "train", flip_pairs=pairs).setup("fit")


def test_check__asks_for_flip_pairs(arrows):
    text = check(data_module(arrows, "train")).text
    assert "names of classes that a mirrored image may change: 2" in text
    assert "set data.flip_pairs to [[left, right]]" in text
    for options in ({"flip_pairs": [["left", "right"]]}, {"transforms": []}):
        assert "mirrored" not in check(data_module(arrows, "train", **options)).text
    report = check(data_module(arrows, "train", flip_pairs=[["left", "rihgt"]]))
    assert not report.ok
    assert "flip_pairs: the data has no class of the name 'rihgt'" in report.text


@pytest.mark.parametrize(
    ("names", "asked"),
    [
        (["arrow_left", "arrow_right", "stop"], "[arrow_left, arrow_right]"),
        (["TurnLeft", "TurnRight"], "[TurnLeft, TurnRight]"),
        (["Pfeil links", "Pfeil rechts"], "[Pfeil links, Pfeil rechts]"),
        (["hand-l", "hand-r"], "[hand-l, hand-r]"),
        (["left", "stop"], "leave RandomHorizontalFlip out"),
        (["leftover", "bright", "copyright", "r"], None),
    ],
)
def test_check__recognises_sides_in_names(tmp_path, names, asked):
    categories = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
    write_noise(tmp_path, 6, categories=categories)
    text = check(data_module(tmp_path, "train")).text
    assert ("a mirrored image may change" in text) == (asked is not None)
    assert asked is None or asked in text


def test_background_images__are_training_images_without_objects(folder, tmp_path):
    write_image(tmp_path / "a.png")
    write_image(tmp_path / "deeper" / "b.png", 50, 20)
    data = data_module(folder, "train", "val", background_images=str(tmp_path), batch_size=1)
    data.setup("fit")
    assert len(data.data["train"]) == 11
    assert data.class_counts.num_images == 11
    assert len(data.data["val"]) == 3
    found = {t["image_id"]: (t["file_name"], len(t["boxes"])) for _, ts in data.train_dataloader() for t in ts}
    assert found[10][1] == found[11][1] == 0
    assert {found[10][0], found[11][0]} == {str(tmp_path / "a.png"), str(tmp_path / "deeper" / "b.png")}


def test_background_images__mistakes_are_explained(folder, tmp_path):
    data = data_module(folder, "train", "val", background_images=["train", "val/*.png"])
    with pytest.warns(UserWarning, match="background images that are in an annotation file: 12"):
        data.setup("fit")
    assert len(data.data["train"]) == 9
    with pytest.raises(ValueError, match=r"background images.*\n?.*"):
        data_module(folder, "train", "val", background_images=["nowhere"]).setup("fit")


def test_background_images__of_a_federated_set_show_no_class(folder, tmp_path):
    content = json.loads((folder / "train.json").read_text())
    for image in content["images"]:
        image |= {"neg_category_ids": [7], "not_exhaustive_category_ids": []}
    (folder / "federated.json").write_text(json.dumps(content))
    write_image(tmp_path / "a.png")
    data = CocoDataModule(
        folder, "train", "federated.json", background_images=tmp_path, num_workers=0, batch_size=1, transforms=[]
    )
    data.setup("fit")
    lists = {t["image_id"]: t["neg_labels"].tolist() for _, ts in data.train_dataloader() for t in ts}
    assert lists[10] == [0, 1]
    assert lists[1] == [1]


@pytest.mark.parametrize(
    "sampler", [None, "class_aware", {"class_path": "repeat_factor", "init_args": {"threshold": 1}}]
)
@pytest.mark.parametrize("share", [0.0, 0.25, 0.6])
def test_empty_share__of_each_epoch(folder, sampler, share):
    data = data_module(folder, "train", "val", sampler=sampler, empty_share=share, batch_size=1, seed=1)
    data.setup("fit")
    batches = data.train_dataloader()
    counts = np.diff(data.data["train"].offsets)  # images 3, 6 and 9 have no boxes
    drawn, orders = [], []
    for epoch in range(4):
        batches.sampler.set_epoch(epoch)
        items = [draw.item for draw in batches.sampler]
        orders.append(items)
        drawn.append(sum(counts[item] == 0 for item in items))
        assert abs(drawn[-1] / len(items) - share) < 0.08
    assert len(set(drawn)) == 1
    assert len({tuple(order) for order in orders}) == 4
    if share == 0.25 and sampler is None:
        assert len(orders[0]) == 8
        assert len({item for order in orders for item in order}) == 9  # all of the images come


def test_empty_share__images_without_objects_are_spread(folder):
    data = data_module(folder, "train", "val", empty_share=0.6, batch_size=1)
    data.setup("fit")
    counts = np.diff(data.data["train"].offsets)
    empty = [int(counts[draw.item] == 0) for draw in data.train_dataloader().sampler]
    assert all(2 <= sum(empty[start : start + 5]) <= 4 for start in range(len(empty) - 4))


def test_empty_share__needs_images_without_objects(tmp_path):
    write_image(tmp_path / "train" / "1.png")
    write_json(tmp_path / "train.json", [image_entry(1)], [box_entry(1, 1)])
    data = data_module(tmp_path, "train", empty_share=0.1)
    data.setup("fit")
    with pytest.raises(UsageError, match=r"empty_share=0\.1: there are no training images without objects"):
        data.train_dataloader()


def test_background_images__of_a_test_file_that_is_not_read_are_left_out(folder):
    write_noise(folder, 4, "test", first_id=50)
    options = {"test_images": "test", "test_annotations": "test.json", "background_images": ["test"]}
    data = data_module(folder, "train", "val", **options)
    with pytest.warns(UserWarning, match="background images that are in an annotation file: 4"):
        data.setup("fit")
    assert len(data.data["train"]) == 9
