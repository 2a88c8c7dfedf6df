"""What the command line decides before a trainer starts."""

import json
from itertools import count
from types import SimpleNamespace

import pytest
import torch
import yaml
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningCLI

from lit_dense.__main__ import main
from lit_dense.cli import lightning_cli
from lit_dense.cli.lightning_cli import LitDenseCLI, _check_path, _in_files, _is_option, _spec
from lit_dense.core.errors import UsageError
from lit_dense.losses import LOSSES, DenseLoss, FocalLoss
from lit_dense.weighters import WEIGHTERS


class Broken(DenseLoss):
    """A plug-in with a bug."""

    def __init__(self):
        super().__init__()
        self.missing.append(1)


def line_of(capsys, *words, status=1):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == status
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lit-dense: ")]
    return line


NETWORK = ["--model.backbone=tiny", "--model.fpn_channels=16", "--trainer.accelerator=cpu"]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("--trainer.accumulate_grad_batches=0", "trainer: accumulate_grad_batches must be at least 1, not 0."),
        ("--trainer.check_val_every_n_epoch=0", "trainer: check_val_every_n_epoch must be at least 1, not 0."),
        ("--trainer.gradient_clip_val=-1", "trainer: gradient_clip_val must be at least 0, not -1"),
        ("--trainer.devices=0", "`Trainer(devices='0')` value is not a valid input using cpu accelerator."),
        ("--trainer.strategy=fsdp", "The strategy `fsdp` requires a GPU accelerator"),
        ("--model.loss=focal --model.loss.gamma=-1", "focal: gamma must be at least 0, not -1.0."),
        ("--model.box_loss=smooth_l1 --model.box_loss.beta=-1", "smooth_l1: beta must be at least 0, not -1.0."),
        ("--model.weighters=[ohem] --model.weighters.ratio=-1", "ohem: ratio must be at least 0, not -1.0."),
        (
            "--trainer.callbacks+=LossPlots --trainer.callbacks.every_n_steps=0",
            "every_n_steps must be at least 1, not 0",
        ),
        ("--trainer.callbacks+=ModelCheckpoint --trainer.callbacks.save_top_k=-5", "Invalid value for save_top_k=-5."),
        ("--ckpt_path=nowhere.ckpt", "There is no checkpoint nowhere.ckpt."),
        ("--ckpt_path=tests", "tests is a folder, not a checkpoint"),
    ],
)
def test_main__an_impossible_value_is_one_line(capsys, word, said):
    assert said in line_of(capsys, "fit", *NETWORK, *word.split())


def test_main__a_bug_of_a_plugin_keeps_its_traceback():
    with pytest.raises(AttributeError, match="no attribute 'missing'"):
        main(["fit", *NETWORK, "--model.loss={class_path: Broken}"])


def test_main__a_configuration_that_gives_a_key_twice_is_one_line(capsys, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("model: {loss: ghm}\nmodel: {lr: 0.1}\n")
    assert "c.yaml, line 2: the key model was given in line 1 already" in line_of(capsys, "fit", f"--config={path}")
    assert "c.yaml, line 2: the key model" in line_of(capsys, "convert", "--to=yolo", "--out=x", f"--config={path}")


def test_main__a_traceback_can_be_asked_for(monkeypatch):
    monkeypatch.setenv("JSONARGPARSE_DEBUG", "true")
    with pytest.raises(UsageError, match="gradient_clip_val"):
        main(["fit", *NETWORK, "--trainer.gradient_clip_val=-1"])


@pytest.mark.parametrize("name", ["last", "best", "hpc", "registry", "s3://bucket/x.ckpt"])
def test_check_path__names_that_lightning_knows_are_no_files(name):
    _check_path(name)


def test_check_path__a_missing_checkpoint_names_those_that_exist(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"^There is no checkpoint a/b.ckpt.$"):
        _check_path("a/b.ckpt")
    for name in ("b.ckpt", "a.ckpt", "c.txt"):
        (tmp_path / name).touch()
    with pytest.raises(UsageError, match=r"^There is no checkpoint x.ckpt. In its folder: a.ckpt, b.ckpt.$"):
        _check_path("x.ckpt")
    with pytest.raises(UsageError, match=r"a.ckpt cannot be read as a checkpoint: it is empty."):
        _check_path("a.ckpt")


def test_said__lists_the_model_arguments_of_the_command_line():
    words = ["fit", "--model.loss.gamma=1", "--model.weighters+=pisa", "--model.lr", "0.1", "--data.seed=1"]
    assert [name for name in ("loss", "weighters", "lr", "seed", "los", "backbone") if _is_option(words, name)] == [
        "loss",
        "weighters",
        "lr",
    ]


def write_yaml(path, content):
    path.write_text(yaml.safe_dump(content) if content is not None else "")
    return path


def test_in_files__lists_the_model_arguments_of_the_files(tmp_path):
    names = count()

    def file(content):
        return write_yaml(tmp_path / f"{next(names)}.yaml", content)

    first = {"model": {"lr": 0.1, "num_classes": None}}
    second = {"fit": {"model": {"loss": "bce"}}, "model": {"prior": 0.1}}
    config = {"config": [file(first), file(None)], "fit": {"config": [file(second), file({"data": {}})]}}
    assert _in_files(config, "fit") == {"lr", "loss"}
    assert _in_files({"config": [None], "fit": {"config": [None]}}, "fit") == set()  # given as text
    assert _in_files({"config": None, "fit": {"config": None}}, "fit") == set()


def test_spec__parts_are_equal_however_they_are_written():
    focal = FocalLoss().spec
    for value in ("focal", "lit_dense.losses.FocalLoss", {"class_path": "focal"}, Namespace(class_path="focal"), focal):
        assert _spec(LOSSES, value) == focal
    assert _spec(LOSSES, {"class_path": "focal", "init_args": {"gamma": 1.0}}) != focal
    assert _spec(LOSSES, None) is None
    for value in ("ohem", ["ohem"], {"class_path": "ohem"}, [Namespace(class_path="ohem")]):
        (spec,) = _spec(WEIGHTERS, value)
        assert spec["class_path"] == "ohem"


def settled(asked, saved, name, verb="fit"):
    """The model's options after a checkpoint and a command have had their say."""
    cli = SimpleNamespace(_asked=Namespace({name: asked}), subcommand=verb)
    model = Namespace({name: saved})
    LitDenseCLI._override(cli, model, name)
    return model[name]


def test_settle__what_is_asked_for_wins_but_for_parts(recwarn):
    assert settled(0.1, 0.2, "lr") == 0.1
    assert settled("focal", FocalLoss().spec, "loss") == FocalLoss().spec
    assert settled("pisa", [WEIGHTERS.build("pisa").spec], "weighters") == [WEIGHTERS.build("pisa").spec]
    assert not recwarn.list
    assert settled("bce", "focal", "loss") == "focal"
    (warning,) = recwarn.list
    assert "The checkpoint's loss is used" in str(warning.message)
    assert "LitDetector.load_from_checkpoint(path, loss=..., strict=False)" in str(warning.message)


@pytest.mark.parametrize("verb", ["fit", "validate"])
def test_settle__a_detector_cannot_take_over_the_weights_of_another(verb):
    assert settled("fcos", "fcos", "detector", verb) == "fcos"
    with pytest.raises(UsageError, match="The checkpoint's detector is ssd: its weights cannot be used for fcos"):
        settled("fcos", "ssd", "detector", verb)


def fitted(tmp_path, words, in_file, **model):
    """The model's options as the command fits them to the detector, and what it says."""
    said = []
    file = write_yaml(tmp_path / "config.yaml", {"model": in_file})
    whole = {"detector": "retinanet", "loss": Namespace(FocalLoss().spec), "assigner": None, **in_file, **model}
    cli = SimpleNamespace(_arguments=words, config={"subcommand": "fit", "config": [file], "fit": {"config": None}})
    options = Namespace(whole)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(lightning_cli, "rank_zero_info", said.append)
        LitDenseCLI._fit_to_detector(cli, options)
    return options.as_dict(), said


@pytest.mark.parametrize(("word", "own"), [("faster_rcnn", None), ("ssd", None), ("ssdlite", None), ("fcos", "focal")])
def test_fit_to_detector__the_loss_by_default_is_the_detectors_own(tmp_path, word, own):
    options, _ = fitted(tmp_path, [], {}, detector=word)
    assert (options["loss"] and options["loss"]["class_path"]) == own
    for words, in_file in ((["--model.loss=focal"], {}), ([], {"loss": "focal"}), (["--model.loss.gamma=2.0"], {})):
        assert fitted(tmp_path, words, in_file, detector=word)[0]["loss"] is not None
    assert fitted(tmp_path, [], {}, detector=word, loss="bce")[0]["loss"] == "bce"  # of an environment variable


def test_fit_to_detector__an_assigner_of_a_file_is_dropped_where_the_command_names_another_detector(tmp_path):
    options, said = fitted(tmp_path, ["--model.detector=fcos"], {"assigner": "atss"}, detector="fcos")
    assert options["assigner"] is None
    assert "assigner was chosen for another detector than fcos" in said[0]
    command = {"detector": "fcos"}
    for words, in_file, more in (
        (["--model.detector=fcos", "--model.assigner=atss"], {"assigner": "atss"}, command),
        ([], {"assigner": "atss", "detector": "fcos"}, {}),
        ([], {"assigner": "atss"}, {}),
    ):
        options, said = fitted(tmp_path, words, in_file, **more)
        assert (options["assigner"], said) == ("atss", [])


def test_settle__an_optimizer_cannot_take_over_the_state_of_another():
    assert settled("sgd", "sgd", "optimizer") == "sgd"
    assert settled("sgd", "adamw", "optimizer", "validate") == "sgd"
    with pytest.raises(UsageError, match=r"The checkpoint's optimizer is adamw: its state cannot be used for sgd"):
        settled("sgd", "adamw", "optimizer")


def decided(words, files=(), verb="fit", checkpoint="x.ckpt", **trainer):
    """The model's options after the decisions of LitDenseCLI: the checkpoint says 1, files and command say 2."""
    names = ("lr", "prior", "num_classes")
    section = Namespace(model=Namespace(dict.fromkeys(names, 1)), trainer=Namespace(trainer), ckpt_path=checkpoint)
    cli = SimpleNamespace(subcommand=verb, _arguments=words, _asked=Namespace(dict.fromkeys(names, 2)))
    cli.config = Namespace({verb: section})
    section.config = list(files)
    cli._override = lambda model, name: LitDenseCLI._override(cli, model, name)
    LitDenseCLI.before_instantiate_classes(cli)
    return section.model.as_dict()


def test_before_instantiate_classes__command_and_files_alone_win_over_a_checkpoint(tmp_path):
    prior = write_yaml(tmp_path / "prior.yaml", {"model": {"prior": 2, "num_classes": None}})
    lr = write_yaml(tmp_path / "lr.yaml", {"model": {"lr": 2}})
    assert decided(["fit"]) == {"lr": 1, "prior": 1, "num_classes": 1}
    assert decided(["fit", "--model.lr=2"]) == {"lr": 2, "prior": 1, "num_classes": 1}
    assert decided(["fit"], [prior]) == {"lr": 1, "prior": 2, "num_classes": 1}
    assert decided(["fit", "--model.lr=2"], [lr], checkpoint=None) == {"lr": 1, "prior": 1, "num_classes": 1}
    assert decided(["check", "--model.lr=2"], verb="check") == {"lr": 1, "prior": 1, "num_classes": None}


def test_before_instantiate_classes__numbers_of_the_trainer_are_checked_in_every_subcommand_that_uses_them():
    for verb in ("fit", "validate", "test", "predict"):
        with pytest.raises(UsageError, match="gradient_clip_val must be at least 0"):
            decided([], verb=verb, gradient_clip_val=-0.1)
        decided([], verb=verb, gradient_clip_val=0, accumulate_grad_batches=1, check_val_every_n_epoch=None)
    decided([], verb="check", gradient_clip_val=-0.1)


@pytest.mark.parametrize("interval", [0, 0.0])
def test_before_instantiate_classes__an_interval_of_no_batches_between_validations_is_refused(interval):
    with pytest.raises(UsageError, match="val_check_interval must be a number of batches, at least 1"):
        decided([], val_check_interval=interval)
    for accepted in (1, 0.25, None, "00:10:00"):
        decided([], val_check_interval=accepted)


class FakeCLI:
    """Stands for LightningCLI: its parser builds what it is told to."""

    def __init__(self, build):
        self.parser = SimpleNamespace(add_instantiator=lambda construct, of: setattr(self, "construct", construct))
        self.build = build

    def instantiate_classes(self):
        try:
            self.build(self.construct)
        except Exception as error:
            raise ValueError("Does not validate against any of the Union subtypes") from error


@pytest.mark.parametrize("error", [UsageError("gamma"), KeyError("x")])
def test_instantiate_classes__errors_of_constructors_arrive_as_they_were_raised(error):
    def fail(value, key=None):
        raise error

    class CLI(LitDenseCLI, FakeCLI):
        __init__ = FakeCLI.__init__

    with pytest.raises(type(error)) as caught:
        _instantiate(CLI(lambda construct: construct(fail, 1, key=2)))
    assert caught.value is error
    assert caught.value.__cause__ is None


def _instantiate(cli):
    """LitDenseCLI's method over that of the class which stands for Lightning's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lightning_cli.LightningCLI, "instantiate_classes", FakeCLI.instantiate_classes)
        LitDenseCLI.instantiate_classes(cli)


def test_instantiate_classes__constructors_get_their_arguments():
    built = []

    class CLI(LitDenseCLI, FakeCLI):
        __init__ = FakeCLI.__init__

    _instantiate(CLI(lambda construct: built.append(construct(dict, {"a": 1}, b=2))))
    assert built == [{"a": 1, "b": 2}]


def test_checking_trainer__prints_the_report_and_exits_with_1_where_the_data_cannot_be_used(capsys, monkeypatch):
    asked = []
    for ok in (True, False):
        report = SimpleNamespace(text="4 images", ok=ok)
        monkeypatch.setattr(lightning_cli, "check", lambda *args, report=report: asked.append(args) or report)
        model = SimpleNamespace(longest_side=96)
        trainer = lightning_cli.CheckingTrainer(accelerator="cpu", logger=False, enable_checkpointing=False)
        if ok:
            trainer.check(model, None)
        else:
            with pytest.raises(SystemExit) as stop:
                trainer.check(model, None)
            assert stop.value.code == 1
        assert asked.pop() == (None, 96)
        assert capsys.readouterr().out == "4 images\n"


def test_lit_dense_cli__subcommands_are_lightnings_and_check():
    assert set(LitDenseCLI.subcommands()) == {
        *("fit", "validate", "test", "predict"),
        *("check", "calibrate", "analyze", "export"),
    }
    for verb in ("check", "calibrate", "analyze", "export"):
        assert LitDenseCLI.subcommands()[verb] == {"model", "datamodule"}


def test_main__a_damaged_checkpoint_is_one_line_in_every_subcommand(capsys, tmp_path):
    path = tmp_path / "bare.ckpt"
    torch.save({"model.weight": torch.zeros(1)}, path)
    for verb in ("fit", "validate", "test", "predict"):
        assert "bare.ckpt is not a checkpoint of LitRetinaNet: it contains only weights" in line_of(
            capsys, verb, *NETWORK, f"--ckpt_path={path}"
        )
    config = tmp_path / "c.json"
    config.write_text(json.dumps({"ckpt_path": str(path)}))
    assert "it contains only weights" in line_of(capsys, "fit", f"--config={config}")


@pytest.mark.parametrize(("read", "given"), [(2.0, 2), (2, 2), (1.0, 1.0), (0.5, 0.5), (1.5, 1.5), (None, None)])
def test_lit_dense_cli__a_number_of_batches_that_was_read_as_a_float_is_an_integer(monkeypatch, read, given):
    cli, options = LitDenseCLI.__new__(LitDenseCLI), Namespace(val_check_interval=read)
    cli.subcommand, cli.config_init = "fit", Namespace(fit=Namespace(trainer=options))
    monkeypatch.setattr(LightningCLI, "instantiate_trainer", lambda self, **kwargs: kwargs)
    assert cli.instantiate_trainer(devices=1) == {"devices": 1}
    assert options.val_check_interval == given
    assert type(options.val_check_interval) is type(given)
