"""The argument ``sampler`` of the data module: names, processes, interruptions, command line."""

import json

import numpy as np
import pytest
from lightning.pytorch.cli import LightningCLI
from torchvision.transforms import v2

from lit_dense.cli.listing import list_names
from lit_dense.core.errors import UsageError
from lit_dense.data import CocoDataModule, EpochSampler
from lit_dense.samplers import ClassAwareSampler, ImageSampler, RepeatFactorSampler
from tests.builders.coco_files import box_entry, image_entry, write_image, write_json
from tests.builders.lit_modules import Recorder, record

REPEAT = {"class_path": "repeat_factor", "init_args": {"threshold": 1.0}}
SAMPLERS = pytest.mark.parametrize("sampler", [REPEAT, "class_aware"], ids=["repeat_factor", "class_aware"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eleven images: ids 1 to 8 show class 3, image 9 class 7, images 10 and 11 none."""
    folder = tmp_path_factory.mktemp("coco")
    for number in range(1, 12):
        write_image(folder / "train" / f"{number}.png", seed=number)
    boxes = [box_entry(number, number, category_id=7 if number == 9 else 3) for number in range(1, 10)]
    write_json(folder / "train.json", [image_entry(number) for number in range(1, 12)], boxes)
    return folder


def make(folder, sampler, **options):
    given = {"num_workers": 0, "batch_size": 2, "seed": 3} | options
    data = CocoDataModule(folder, train_images="train", train_annotations="train.json", sampler=sampler, **given)
    data.setup("fit")
    return data


def seen(loader, epoch=0):
    """Image and pixels of each sample of an epoch, batch by batch."""
    loader.sampler.set_epoch(epoch)
    return [[(target["image_id"], int(image.sum())) for image, target in zip(*batch, strict=True)] for batch in loader]


def ids(batches):
    return [number for batch in batches for number, _ in batch]


@pytest.mark.parametrize(
    "given",
    [
        RepeatFactorSampler(1.0),
        REPEAT,
        {"class_path": "lit_dense.samplers.RepeatFactorSampler", "init_args": {"threshold": 1.0}},
        {"class_path": "lit_dense.samplers.repeat_factor", "init_args": {"threshold": 1.0}},
    ],
    ids=["object", "name", "class", "alias"],
)
def test_sampler__is_given_in_several_ways(folder, given):
    data = make(folder, given)
    assert data.sampler.spec["init_args"] == {"threshold": 1.0, "method": "rfs"}
    assert type(data.sampler) is RepeatFactorSampler
    # f = 8/11 and 1/11: 8 sqrt(11/8) + sqrt(11) + 2 = 14.7, so 15 draws in 7 batches of 2
    loader = data.train_dataloader()
    assert len(loader.sampler) == 15
    assert len(loader) == len(list(loader)) == 7


def test_sampler__a_name_alone_has_the_default_arguments(folder):
    assert make(folder, "repeat_factor").sampler.threshold == 0.001
    assert type(make(folder, "class_aware").sampler) is ClassAwareSampler


def test_sampler__mistakes_are_explained(folder):
    with pytest.raises(
        UsageError, match=r"Unknown sampler 'repeat_factr'\. Did you mean 'repeat_factor'\? Available: "
    ):
        make(folder, "repeat_factr")
    with pytest.raises(UsageError, match=r"class_aware, repeat_factor"):
        make(folder, "uniform")
    with pytest.raises(UsageError, match=r"threshold must be in \[0, 1\], not 2"):
        make(folder, {"class_path": "repeat_factor", "init_args": {"threshold": 2}})
    with pytest.raises(UsageError, match=r"'repeat_factor' has no argument 'treshold'\. Did you mean 'threshold'"):
        make(folder, {"class_path": "repeat_factor", "init_args": {"treshold": 0.1}})
    with pytest.raises(UsageError, match="Sampler 'class_aware' has no argument 'threshold'"):
        make(folder, {"class_path": "class_aware", "init_args": {"threshold": 0.1}})


def test_sampler__without_one_the_order_is_what_it_was(folder):
    rng = np.random.default_rng([3, 5])
    expected = (rng.permutation(11)[:10] + 1).tolist()
    loader = make(folder, None).train_dataloader()
    assert ids(seen(loader, epoch=5)) == expected
    loader.sampler.set_epoch(5)
    assert [draw.seed for draw in loader.sampler] == rng.integers(2**63, size=11).tolist()


@SAMPLERS
def test_sampler__class_counts_are_those_of_the_data_set(folder, sampler):
    counts = make(folder, sampler).class_counts
    assert counts.images.tolist() == [8, 1]
    assert counts.num_images == 11


@SAMPLERS
def test_sampler__an_image_that_comes_twice_in_an_epoch_is_augmented_twice(folder, sampler):
    data = make(folder, sampler, transforms=[v2.ColorJitter(brightness=0.9)], batch_size=1)
    rare = [pixels for batch in seen(data.train_dataloader()) for number, pixels in batch if number == 9]
    assert len(rare) >= 3
    assert len(set(rare)) == len(rare)


@SAMPLERS
def test_sampler__processes_together_see_what_one_sees(folder, sampler):
    data = make(folder, sampler)
    order = data.train_dataloader().sampler._order
    for epoch in range(3):
        whole = EpochSampler(range(11), 1, 0, 3, order=order)
        whole.set_epoch(epoch)
        ranks = [EpochSampler(range(11), 2, rank, 3, order=order) for rank in range(2)]
        for rank in ranks:
            rank.set_epoch(epoch)
        together = [draw for pair in zip(*ranks, strict=True) for draw in pair]
        assert together[: len(whole)] == list(whole)
        assert [draw.item for draw in together[len(whole) :]] == [draw.item for draw in together][
            :1
        ]  # the filled place


@SAMPLERS
def test_sampler__workers_change_nothing_and_epochs_differ(folder, sampler):
    alone, helped = (make(folder, sampler, num_workers=workers).train_dataloader() for workers in (0, 2))
    epochs = [seen(alone, epoch) for epoch in range(2)]
    assert epochs == [seen(helped, epoch) for epoch in range(2)]
    assert ids(epochs[0]) != ids(epochs[1])


@SAMPLERS
def test_sampler__a_run_goes_on_in_the_middle_of_an_epoch(folder, tmp_path, sampler):
    whole = record(make(folder, sampler), tmp_path / "whole")
    per_epoch = len(whole.seen) // 3
    assert whole.steps == len(whole.seen) == 3 * per_epoch
    stop = per_epoch + 2
    record(make(folder, sampler), tmp_path / "part", stop_after=stop)
    resumed = record(make(folder, sampler), tmp_path / "rest", ckpt_path=tmp_path / "part" / f"step={stop}.ckpt")
    assert resumed.seen == whole.seen[stop:]


def test_sampler__the_state_of_the_data_module_finds_the_place(folder):
    first, second = make(folder, REPEAT), make(folder, REPEAT)
    loader = first.train_dataloader()
    whole = seen(loader, epoch=2)
    batches = iter(loader)
    for _ in range(3):
        next(batches)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert seen(second.train_dataloader(), epoch=2) == whole[3:]


class Backwards(ImageSampler):
    """Somebody's own: the last images, from behind, as many as asked for in each epoch."""

    def __init__(self, lengths: list[int], offset: int = 0):
        super().__init__()
        self.lengths, self.offset, self.epochs = lengths, offset, 0

    def order(self, data, category_ids, rng):
        length = self.lengths[min(self.epochs, len(self.lengths) - 1)]
        self.epochs += 1
        return np.arange(len(data))[::-1][:length] + self.offset


def test_image_sampler__a_custom_one(folder):
    data = make(folder, {"class_path": "Backwards", "init_args": {"lengths": [5]}})
    assert ids(seen(data.train_dataloader())) == [11, 10, 9, 8]
    few = make(folder, Backwards([1]))
    assert ids(seen(few.train_dataloader())) == [11]  # less than a batch: it is not left out


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        (Backwards([0]), "gives no images"),
        (Backwards([5, 5, 4]), r"gives 4 images in epoch 0, and 5 .* must be equally long"),
        (Backwards([5], offset=1), "images 7 to 11; the data set has 0 to 10"),
        (Backwards([11], offset=-1), "images -1 to 9"),
        (Backwards([5], offset=0.5), r"gives float64 of shape \[5\]: it must give integers"),
    ],
)
def test_image_sampler__an_order_that_cannot_be_followed(folder, sampler, message):
    with pytest.raises(UsageError, match=message):
        seen(make(folder, sampler).train_dataloader())


def test_image_sampler__must_give_an_order():
    class Idle(ImageSampler):
        pass

    with pytest.raises(TypeError, match=r"abstract method .*order"):
        Idle()


def command_line(folder, *words):
    """The data module of a plain LightningCLI."""
    words = [f"--data.root={folder}", "--data.train_images=train", "--data.train_annotations=train.json", *words]
    return LightningCLI(Recorder, CocoDataModule, run=False, args=words, save_config_callback=None).datamodule


@pytest.mark.parametrize(
    ("words", "spec"),
    [
        (["--data.sampler=repeat_factor"], {"threshold": 0.001, "method": "rfs"}),
        (["--data.sampler=repeat_factor", "--data.sampler.threshold=0.5"], {"threshold": 0.5, "method": "rfs"}),
        (
            ["--data.sampler={class_path: repeat_factor, init_args: {threshold: 0.5}}"],
            {"threshold": 0.5, "method": "rfs"},
        ),
        (["--data.sampler=class_aware"], {}),
    ],
)
def test_sampler__names_on_the_command_line(folder, words, spec):
    sampler = command_line(folder, *words).sampler
    assert sampler.spec["init_args"] == spec
    assert isinstance(sampler, RepeatFactorSampler if spec else ClassAwareSampler)


def test_sampler__names_in_a_file(folder, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("data:\n  sampler: {class_path: repeat_factor, init_args: {threshold: 0.3}}\n")
    assert command_line(folder, f"--config={config}").sampler.threshold == 0.3
    config.write_text("data:\n  sampler: class_aware\n")
    assert type(command_line(folder, f"--config={config}").sampler) is ClassAwareSampler
    assert command_line(folder, f"--config={config}", "--data.sampler=null").sampler is None
    assert command_line(folder).sampler is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data.sampler=repeat"], "Unknown sampler 'repeat'. Did you mean 'repeat_factor'? Available: class_aware"),
        (["--data.sampler=repeat_factor", "--data.sampler.treshold=1"], "has no argument 'treshold'. Did you mean"),
        (["--data.sampler=repeat_factor", "--data.sampler.threshold=many"], "threshold"),
    ],
)
def test_sampler__mistakes_on_the_command_line(folder, capsys, words, message):
    with pytest.raises(SystemExit):
        command_line(folder, *words)
    assert message in " ".join(capsys.readouterr().err.split())


def test_sampler__a_wrong_threshold_on_the_command_line(folder):
    with pytest.raises(ValueError, match=r"repeat_factor: threshold must be in \[0, 1\], not 2"):
        command_line(folder, "--data.sampler=repeat_factor", "--data.sampler.threshold=2")


def test_list_names__samplers_are_listed_with_the_argument_that_takes_them():
    words = [line.split()[:2] for line in list_names().splitlines()]
    assert ["samplers", "--data.sampler=class_aware"] in words
    assert ["samplers", "--data.sampler=repeat_factor"] in words
    assert ["losses", "--model.loss=focal"] in words
