"""Every way to name a loss, through ``lit-dense`` and through a user's own plain LightningCLI."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch.cli import LightningCLI

from lit_dense import CocoDataModule, LitRetinaNet
from lit_dense.__main__ import main
from lit_dense.box_losses import BOX_LOSSES
from lit_dense.cli.lightning_cli import run
from lit_dense.losses import LOSSES, DenseLoss
from tests.builders.coco_files import data_arguments, write_shape_splits
from tests.builders.command_lines import DOORS
from tests.builders.project_files import CONFIGS, RECIPES

NETWORK = {"backbone": "tiny", "fpn_channels": 16, "min_size": 64, "max_size": 64}
OTHER_OF_FOCAL = {"pos_weight": 1.0}
OTHERS_OF_BCE = {"pos_weight": 1.0, "label_smoothing": 0.0, "bootstrap": None, "bootstrap_beta": None}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("coco")
    write_shape_splits(folder)
    return folder


@pytest.fixture
def config(folder, tmp_path, monkeypatch) -> Path:
    """A configuration that trains one step, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    trainer = {
        "accelerator": "cpu",
        "max_steps": 1,
        "limit_val_batches": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": str(tmp_path / "runs"),
        "num_sanity_val_steps": 0,
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"trainer": trainer, "model": NETWORK, "data": data_arguments(folder)}))
    return path


def some_quick(names, *quick):
    """All names as parameters, of which only a few are not slow: each trains in its own test too."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in sorted(names)]


class LogitSum(DenseLoss):
    def forward(self, logits, labels, samples):
        return logits.sum(1)


def fit(door, config, *words):
    """The module that ``fit`` trains with these further words."""
    return door(["fit", f"--config={config}", "--trainer.logger=false", *words]).model


def message(door, config, capsys, *words):
    """What an ill-formed command says, on one line."""
    with pytest.raises(SystemExit) as stop:
        fit(door, config, *words)
    assert stop.value.code == 2
    return " ".join(capsys.readouterr().err.split())


def error_line(capsys, *words):
    """The line with which a command fails."""
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lit-dense: ")]
    return line


@DOORS
@pytest.mark.parametrize(
    ("words", "loss", "arguments"),
    [
        ([], "FocalLoss", {"alpha": 0.25, "gamma": 2.0, **OTHER_OF_FOCAL}),
        (["--model.loss=bce"], "BCELoss", {"alpha": 0.5, **OTHERS_OF_BCE}),
        (
            ["--model.loss=focal", "--model.loss.gamma=1.5"],
            "FocalLoss",
            {"alpha": 0.25, "gamma": 1.5, **OTHER_OF_FOCAL},
        ),
        (["--model.loss.gamma=1.5"], "FocalLoss", {"alpha": 0.25, "gamma": 1.5, **OTHER_OF_FOCAL}),
        (
            ["--model.loss={class_path: bce, init_args: {alpha: 0.7}}"],
            "BCELoss",
            {"alpha": 0.7, **OTHERS_OF_BCE},
        ),
        (
            ["--model.loss.class_path=bce", "--model.loss.init_args.alpha=0.7"],
            "BCELoss",
            {"alpha": 0.7, **OTHERS_OF_BCE},
        ),
        (["--model.loss=lit_dense.losses.bce"], "BCELoss", {"alpha": 0.5, **OTHERS_OF_BCE}),
    ],
)
def test_cli__a_loss_is_one_word(door, config, words, loss, arguments):
    got = fit(door, config, *words).criterion.loss.spec
    assert got == {"class_path": loss[:-4].lower(), "init_args": arguments}


@DOORS
@pytest.mark.parametrize(
    ("model", "loss", "arguments"),
    [
        ({"loss": "bce"}, "BCELoss", {"alpha": 0.5, **OTHERS_OF_BCE}),
        (
            {"loss": {"class_path": "focal", "init_args": {"gamma": 1.0}}},
            "FocalLoss",
            {"alpha": 0.25, "gamma": 1.0, **OTHER_OF_FOCAL},
        ),
    ],
)
def test_cli__a_loss_in_a_file(door, config, tmp_path, model, loss, arguments):
    second = tmp_path / "second.yaml"
    second.write_text(yaml.safe_dump({"model": model}))
    got = fit(door, config, f"--config={second}").criterion.loss
    assert type(got).__name__ == loss
    assert got.spec["init_args"] == arguments
    changed = fit(door, config, f"--config={second}", "--model.loss.alpha=0.9").criterion.loss
    assert type(changed).__name__ == loss
    assert changed.alpha == 0.9


@DOORS
def test_cli__a_loss_that_replaces_another_has_its_own_defaults(door, config, tmp_path):
    second = tmp_path / "second.yaml"
    for loss in ("focal", "{class_path: focal, init_args: {alpha: 0.9, gamma: 3.0}}"):
        second.write_text(f"model: {{loss: {loss}}}")
        assert fit(door, config, f"--config={second}", "--model.loss=bce").criterion.loss.alpha == 0.5


@DOORS
def test_cli__all_parts_are_chosen_the_same_way(door, config, plugins):
    plugins("good")
    words = [
        "--model.box_loss=smooth_l1",
        "--model.box_loss.beta=0.2",
        "--model.normalizer=ema",
        "--model.assigner=max_iou",
    ]
    weighters = ["--model.weighters+=my_weighter", "--model.weighters.strength=3"]
    spec = fit(door, config, *words, *weighters).criterion.spec
    assert spec["box_loss"]["init_args"] == {"beta": 0.2}
    assert spec["normalizer"]["class_path"] == "ema"
    assert spec["assigner"]["init_args"]["positive"] == 0.5
    assert [w["init_args"] for w in spec["weighters"]] == [{"strength": 3}]
    listed = fit(door, config, "--model.weighters=[my_weighter]", "--model.normalizer=none").criterion.spec
    assert [w["init_args"] for w in listed["weighters"]] == [{"strength": 7}]
    assert listed["normalizer"]["class_path"] == "none"


@DOORS
def test_cli__a_plugin_with_arguments(door, config, plugins):
    plugins("good")
    loss = fit(door, config, "--model.loss=my_loss", "--model.loss.temperature=2").criterion.loss
    assert loss.spec == {"class_path": "my_loss", "init_args": {"temperature": 2.0}}


@DOORS
def test_cli__an_unknown_name(door, config, capsys, plugins):
    plugins("good")
    said = message(door, config, capsys, "--model.loss=focall")
    assert "Unknown loss 'focall'. Did you mean 'focal'?" in said
    assert "Available: alrp, ap, asl, " in said
    assert "my_loss (good-plugin 1.2)" in said
    assert "Unknown weighter 'my_weightr'. Did you mean 'my_weighter'" in message(
        door, config, capsys, "--model.weighters+=my_weightr"
    )


@DOORS
def test_cli__arguments_that_are_not_accepted(door, config, capsys):
    said = message(door, config, capsys, "--model.loss=focal", "--model.loss.gama=1")
    assert "Loss 'focal' has no argument 'gama'. Did you mean 'gamma'?" in said
    assert "Accepted: alpha: float = 0.25, gamma: float = 2.0, pos_weight: float | " in said
    for given, path in (("class_path: focal, gamma: 1.5", "focal"), ("gamma: 1.5", "NAME")):
        said = message(door, config, capsys, f"--model.loss={{{given}}}")
        assert "A loss has only class_path and init_args: its arguments belong into init_args, as in" in said
        assert f"{{class_path: {path}, init_args: {{gamma: ...}}}}" in said
    said = message(door, config, capsys, "--model.loss=focal", "--model.loss.gamma=abc")
    assert "gamma" in said
    assert re.search(r"Expected a (<class 'float'>|float). Got value: abc", said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data.sampler=repeat_factor", "--data.sampler.threshold=2"], "repeat_factor: threshold must be in [0, 1]"),
        (["--model.box_loss=smooth_l1", "--model.box_loss.beta=-1"], "smooth_l1: beta must be at least 0, not -1"),
        (["--model.loss=focal", "--model.loss.gamma=-1"], "gamma must be at least 0, not -1"),
    ],
)
def test_cli__arguments_out_of_range_are_one_line(config, capsys, words, said):
    assert said in error_line(capsys, "fit", f"--config={config}", *words)


@pytest.mark.parametrize(
    ("package", "words", "said"),
    [
        ("timm", ["--model.backbone=timm/test_resnet"], 'needs timm: pip install "lit-dense[timm]"'),
        ("sklearn", ["--data={demo: true, root: demo}"], 'scikit-learn\'s digits: pip install "lit-dense[demo]"'),
    ],
)
def test_cli__a_missing_optional_package_is_named(config, capsys, monkeypatch, package, words, said):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, f"{package}.datasets", None)
    settings = yaml.safe_load(config.read_text())
    if package == "sklearn":
        del settings["data"]
    config.write_text(yaml.safe_dump(settings))
    assert said in error_line(capsys, "fit", f"--config={config}", *words)


def test_cli__another_optimizer_than_that_of_the_model_is_not_taken(config, capsys):
    assert "--optimizer" in message(run, config, capsys, "--optimizer=Adam")


@DOORS
def test_cli__plugins_that_are_broken_or_claim_one_name(door, config, capsys, plugins):
    plugins("good", "broken", "clash")
    said = message(door, config, capsys, "--model.loss=broken_loss")
    assert "broken_plugin:BrokenLoss of broken-plugin 0.1) failed to import" in said
    said = message(door, config, capsys, "--model.loss=my_loss")
    assert "Two packages claim the loss 'my_loss': clash-plugin 3.0" in said
    assert "good-plugin 1.2" in said


def test_cli__imports_nothing_before_it_is_used():
    code = "import sys, lit_dense.cli.lightning_cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {"torch", "lit_dense.training"} <= loaded
    late = {"hotcoco", "sklearn", "timm", "ray", "tensorboard", "lit_dense.visualization.figures", "lit_dense.compare"}
    if "transformers" in loaded:  # which old torchmetrics imports, and which imports scikit-learn
        late -= {"sklearn"}
    assert not late & loaded


@DOORS
def test_cli__a_printed_configuration_loads_back_and_trains_the_same(door, config, capsys, tmp_path):
    words = ["--model.loss=focal", "--model.loss.gamma=1.5", "--model.normalizer=batch", "--seed_everything=3"]
    with pytest.raises(SystemExit):
        fit(door, config, *words, "--print_config")
    printed = tmp_path / "printed.yaml"
    printed.write_text(capsys.readouterr().out)
    first, second = fit(door, config, *words), fit(door, printed)
    assert first.criterion.spec == second.criterion.spec
    for a, b in zip(first.state_dict().items(), second.state_dict().items(), strict=True):
        assert a[0] == b[0]
        torch.testing.assert_close(a[1], b[1], rtol=0, atol=0)


@DOORS
def test_cli__a_checkpoint_rebuilds_everything(door, config, tmp_path, plugins):
    plugins("good")
    words = [
        "--model.loss=my_loss",
        "--model.loss.temperature=2",
        "--model.normalizer=ema",
        "--model.weighters=[my_weighter]",
    ]
    trained = door(["fit", f"--config={config}", *words])
    path = trained.trainer.checkpoint_callback.best_model_path
    saved = torch.load(path, weights_only=True)
    assert saved["lit_dense"]["categories"] == [{"id": 3, "name": "bar"}, {"id": 7, "name": "square"}]
    assert yaml.safe_load((Path(trained.trainer.log_dir) / "config.yaml").read_text())["model"]["normalizer"] == "ema"
    loaded = LitRetinaNet.load_from_checkpoint(path)
    assert loaded.criterion.spec == trained.model.criterion.spec
    assert loaded.num_classes == 2
    assert loaded.categories == trained.model.categories
    assert loaded.criterion.normalizer.positives == trained.model.criterion.normalizer.positives != 100
    assert loaded.criterion.step == 1
    validated = door(["validate", f"--config={config}", f"--ckpt_path={path}"]).model
    assert validated.criterion.spec == trained.model.criterion.spec
    other = LitRetinaNet.load_from_checkpoint(path, loss="focal", strict=False)
    assert type(other.criterion.loss).__name__ == "FocalLoss"


def test_cli__warns_of_another_loss_than_the_checkpoints(config, recwarn):
    path = run(["fit", f"--config={config}", "--model.loss=bce"]).trainer.checkpoint_callback.best_model_path
    model = run(["fit", f"--config={config}", "--model.loss=focal", f"--ckpt_path={path}"]).model
    assert type(model.criterion.loss).__name__ == "BCELoss"
    assert any("The checkpoint's loss is used" in str(w.message) for w in recwarn)


def test_cli__a_configuration_file_wins_over_the_checkpoint_too(config, tmp_path, recwarn):
    path = run(["fit", f"--config={config}", "--model.nms_thresh=0.6"]).trainer.checkpoint_callback.best_model_path
    more = tmp_path / "more.yaml"
    more.write_text("model: {lr: 0.25, nms_thresh: 0.7, num_classes: null, loss: qfl}")
    words = [f"--config={config}", f"--config={more}", f"--ckpt_path={path}"]
    model = run(["validate", *words]).model
    assert (model.hparams.lr, model.hparams.nms_thresh, model.num_classes) == (0.25, 0.7, 2)
    assert any("The checkpoint's loss is used" in str(w.message) for w in recwarn)
    assert type(model.criterion.loss).__name__ == "FocalLoss"
    unsaid = run(["validate", f"--config={config}", f"--ckpt_path={path}"]).model
    assert unsaid.hparams.nms_thresh == 0.6


def test_cli__errors_of_lightning_and_bad_checkpoints_are_one_line(config, tmp_path, capsys):
    broken = tmp_path / "broken.ckpt"
    broken.write_bytes(b"PK not really")
    for words, said in (
        (["fit", f"--config={config}", "--trainer.fast_dev_run=-2"], "lit-dense: fast_dev_run=-2"),
        (["validate", f"--config={config}", f"--ckpt_path={broken}"], "broken.ckpt cannot be read as a checkpoint"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 1
        assert said in capsys.readouterr().err


def test_cli__warns_that_a_finished_run_is_not_continued(config, recwarn):
    words = ["fit", f"--config={config}", "--model.schedule=cosine", "--trainer.max_steps=-1"]
    done = run([*words, "--trainer.max_epochs=20"]).trainer.checkpoint_callback.best_model_path
    assert not any("schedule has ended" in str(w.message) for w in recwarn)
    run([*words, "--trainer.max_epochs=21", f"--ckpt_path={done}"])
    assert any("schedule has ended" in str(w.message) for w in recwarn)


def test_cli__a_missing_checkpoint_is_named(config, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["test", f"--config={config}", "--ckpt_path=nowhere.ckpt"])
    assert stop.value.code == 1
    assert "lit-dense: There is no checkpoint nowhere.ckpt." in capsys.readouterr().err


def test_cli_predict__takes_a_folder_and_writes_coco_results_and_images(config, folder, tmp_path):
    path = run(["fit", f"--config={config}"]).trainer.checkpoint_callback.best_model_path
    words = ["predict", f"--ckpt_path={path}", f"--data.predict={folder / 'val'}", "--data.num_workers=0"]
    trainer = ["--trainer.accelerator=cpu", "--trainer.logger=false", f"--trainer.default_root_dir={tmp_path}"]
    run([*words, *trainer, "--predictions.pictures=true", "--model.score_thresh=0", "--predictions.score_thresh=0.01"])
    results = json.loads((tmp_path / "predictions.json").read_text())
    assert {r["file_name"] for r in results} == {f"{folder}/val/{i}.png" for i in range(1, 5)}
    assert {r["category_id"] for r in results} <= {3, 7}
    assert all(0 <= r["bbox"][0] <= 64 and r["bbox"][2] <= 64 for r in results)
    assert len(list((tmp_path / "predictions").glob("*.png"))) == 4


def test_cli__the_installed_command(folder, config):
    """One real process, whose current folder holds the user's own loss."""
    Path("mylocal.py").write_text(
        "from lit_dense import DenseLoss\n\n\nclass Foo(DenseLoss):\n    def forward(self, logits, labels, samples):\n"
        "        return logits.square().sum(1)\n"
    )
    command = [str(Path(sys.executable).with_name("lit-dense"))]
    environment = {**os.environ, "PL_DISABLE_FORK": "1"}
    done = subprocess.run(
        [*command, "fit", f"--config={config}", "--model.loss=mylocal.Foo"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (saved,) = Path("runs").rglob("config.yaml")
    assert yaml.safe_load(saved.read_text())["model"]["loss"] == "mylocal.Foo"
    broken = Path("broken.json")
    broken.write_text("{")
    done = subprocess.run(
        [*command, "check", f"--config={config}", f"--data.train_annotations={broken.resolve()}"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 1
    assert "broken.json" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_cli__a_class_of_the_users_script_is_named_by_its_class(config):
    assert type(fit(run, config, "--model.loss=LogitSum").criterion.loss) is LogitSum


@pytest.mark.parametrize("loss", some_quick(LOSSES.points, "focal", "ghm", "rs", "seesaw", "federated"))
def test_cli__every_loss_trains_by_its_name(config, loss):
    module = fit(run, config, f"--model.loss={loss}")
    assert type(module.criterion.loss) is LOSSES.load(loss)
    assert module.criterion.step == 1


@pytest.mark.parametrize("box_loss", some_quick(BOX_LOSSES.points, "l1", "giou", "dfl"))
def test_cli__every_box_loss_trains_by_its_name(config, box_loss):
    module = fit(run, config, f"--model.box_loss={box_loss}", "--model.box_loss_weight=2")
    assert type(module.criterion.box_loss) is BOX_LOSSES.load(box_loss)
    assert module.criterion.box_loss_weight == 2


def test_cli__a_loss_inside_a_loss(config):
    module = fit(run, config, "--model.loss=federated", "--model.loss.loss=focal", "--model.loss.num_classes=1")
    assert type(module.criterion.loss.loss).__name__ == "FocalLoss"
    assert module.criterion.spec["loss"]["init_args"]["loss"]["init_args"] == {
        "alpha": 0.25,
        "gamma": 2.0,
        "pos_weight": 1.0,
    }


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda p: p.stem)
def test_cli__every_recipe_trains(config, recipe):
    module = fit(run, config, f"--config={recipe}")
    chosen = yaml.safe_load(recipe.read_text()).get("model", {"loss": "focal"})["loss"]
    assert type(module.criterion.loss) is LOSSES.load(chosen if isinstance(chosen, str) else chosen["class_path"])
    assert module.criterion.step == 1


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda p: p.stem)
def test_cli__every_configuration_builds_its_parts(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.strategy=auto"]
    cli = LightningCLI(LitRetinaNet, CocoDataModule, run=False, args=[f"--config={path}", *here])
    chosen = yaml.safe_load(path.read_text())
    assert cli.model.criterion.spec["loss"]["class_path"] == LOSSES.build(chosen["model"]["loss"]).spec["class_path"]
    assert cli.datamodule.batch_size == chosen["data"]["batch_size"]
    assert cli.trainer.max_epochs == chosen["trainer"]["max_epochs"]


@DOORS
@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["--model.weighters=[pisa]"], ["PISAWeighter"]),
        (["--model.weighters=[pisa]", "--model.weighters+=ohem"], ["PISAWeighter", "OHEMWeighter"]),
        (["--model.weighters+=swn"], ["SWNWeighter"]),
        (["--model.weighters+={class_path: ohem, init_args: {ratio: 5, warmup_steps: 10}}"], ["OHEMWeighter"]),
    ],
)
def test_cli__weighters_are_a_list_of_words(door, config, words, names):
    module = fit(door, config, *words)
    assert [type(w).__name__ for w in module.criterion.weighters] == names
    assert module.criterion.step == 1


def test_cli__weighters_with_arguments_in_a_file(config):
    weighters = ["pisa", {"class_path": "ohem", "init_args": {"ratio": 5.0, "fade_steps": 100}}]
    more = config.parent / "weighters.yaml"
    more.write_text(yaml.safe_dump({"model": {"weighters": weighters}}))
    pisa, ohem = fit(run, config, f"--config={more}").criterion.weighters
    assert (pisa.gamma, ohem.ratio, ohem.fade_steps) == (2.0, 5.0, 100)


@pytest.mark.parametrize("assigner", ["atss", "top_n"])
def test_cli__assigners_by_name(config, assigner):
    assert fit(run, config, f"--model.assigner={assigner}").criterion.step == 1
