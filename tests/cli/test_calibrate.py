"""``lit-dense calibrate``: a checkpoint with a calibrator, which validation uses."""

import pytest
import torch
from lightning.pytorch import callbacks

from lit_dense import LitRetinaNet
from lit_dense.__main__ import main
from lit_dense.cli.lightning_cli import run
from tests.builders.trained import one_step


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A configuration, and a checkpoint of one step."""
    return one_step(tmp_path_factory.mktemp("calibrate"), limit_val_batches=2)


@pytest.mark.parametrize("name", ["temperature", pytest.param("logit_adjustment", marks=pytest.mark.slow), "fracal"])
def test_calibrate__writes_a_checkpoint_that_validation_uses(trained, tmp_path, capsys, name):
    config, checkpoint = trained
    output = tmp_path / "out" / "calibrated.ckpt"
    run(["calibrate", f"--config={config}", f"--ckpt_path={checkpoint}", f"--calibrator={name}", f"--output={output}"])
    shown = capsys.readouterr().out
    assert shown.startswith(f"{name}: ")
    for text in ("before", "map_rare", "map_frequent", "ece", "reliability", f"Written to {output}"):
        assert text in shown
    assert "-1.0000" not in shown  # groups of classes without objects have a dash
    assert ("No calibrated score reaches" in shown) == (name == "fracal")  # it squares the scores, near .01
    after = float(next(line for line in shown.splitlines() if line.startswith("map ")).split()[2])
    module = LitRetinaNet.load_from_checkpoint(output, map_location="cpu")
    assert module.criterion.spec["calibrator"]["class_path"] == name
    cli = run(["validate", f"--config={config}", f"--ckpt_path={output}"])
    assert float(cli.trainer.callback_metrics["val_map"]) == pytest.approx(after, abs=1e-4)
    saved = torch.load(output, weights_only=True)
    assert "optimizer_states" in saved  # training can go on from it
    run(["calibrate", f"--config={config}", f"--ckpt_path={output}", f"--output={tmp_path / 'again.ckpt'}"])
    again = capsys.readouterr().out
    assert f"\n{name}: " in again  # the calibrator of the checkpoint
    option = f"--model.calibrator={name}"
    run(["calibrate", f"--config={config}", option, f"--ckpt_path={checkpoint}", f"--output={tmp_path / 'own.ckpt'}"])
    assert f"\n{name}: " in "\n" + capsys.readouterr().out
    before = [line.split()[1] for line in (shown, again) for line in line.splitlines() if line.startswith("map ")]
    assert before[0] == before[1]  # the detections without calibration


def test_calibrate__mistakes_are_one_line(trained, tmp_path, capsys):
    config, checkpoint = trained
    with pytest.raises(SystemExit):
        main(["calibrate", f"--config={config}", f"--ckpt_path={checkpoint}", f"--output={tmp_path}"])
    assert f"--output={tmp_path} is a folder: give a file, such as --output={tmp_path}/" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["calibrate", f"--config={config}"])
    assert "calibrate needs a trained model: give --ckpt_path=PATH." in capsys.readouterr().err


def test_validate__a_checkpoint_with_another_calibrator(trained, tmp_path, capsys, recwarn):
    config, checkpoint = trained
    fitted = tmp_path / "fitted.ckpt"
    run(
        [
            "calibrate",
            f"--config={config}",
            f"--ckpt_path={checkpoint}",
            "--calibrator=temperature",
            f"--output={fitted}",
        ]
    )

    def calibrator(*arguments):
        cli = run(["validate", f"--config={config}", *arguments])
        return cli.model.criterion.spec["calibrator"]

    hot = ["--model.calibrator=temperature", "--model.calibrator.temperature=3.0"]
    assert calibrator(f"--ckpt_path={checkpoint}", *hot)["init_args"] == {"temperature": 3.0}
    assert calibrator(f"--ckpt_path={fitted}", *hot)["init_args"] == {"temperature": 3.0}
    assert calibrator(f"--ckpt_path={fitted}")["init_args"] != {"temperature": 3.0}
    counts = ["--model.calibrator=logit_adjustment", "--model.calibrator.counts=[9,4]"]
    assert calibrator(f"--ckpt_path={fitted}", *counts)["class_path"] == "logit_adjustment"


def test_lit_detector__another_calibrator_than_that_of_the_checkpoint_is_told(trained, tmp_path):
    content = torch.load(trained[1], weights_only=True)
    spec = {"class_path": "logit_adjustment", "init_args": {"tau": 0.5, "counts": [9.0, 4.0]}}
    content["lit_dense"]["criterion"]["calibrator"] = spec
    content["state_dict"]["criterion.calibrator.counts.values"] = torch.tensor([9.0, 4.0])
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.warns(UserWarning, match="The checkpoint was trained with calibrator .*logit_adjustment.*has None"):
        module = LitRetinaNet.load_from_checkpoint(tmp_path / "a.ckpt", map_location="cpu")
    assert module.criterion.calibrator is None


@pytest.mark.parametrize("name", ["logit_adjustment", "fracal"])
def test_validate__a_calibrator_takes_class_counts_from_the_training_set(trained, name):
    config, checkpoint = trained
    cli = run(["validate", f"--config={config}", f"--ckpt_path={checkpoint}", f"--model.calibrator={name}"])
    cli.datamodule.setup("fit")
    counts = cli.datamodule.class_counts
    expected = counts.instances if name == "logit_adjustment" else counts.frequencies
    assert next(iter(cli.model.criterion.calibrator.state_dict().values())).tolist() == pytest.approx(expected.tolist())


def test_calibrate__says_when_an_evaluation_has_fewer_candidates(trained, tmp_path, capsys):
    config, checkpoint = trained
    command = ["calibrate", f"--config={config}", f"--ckpt_path={checkpoint}", "--calibrator=temperature"]
    for topk, is_said in ((20, True), (1000, False)):
        run([*command, f"--output={tmp_path / 'c.ckpt'}", f"--model.topk_candidates={topk}"])
        assert (f"topk_candidates={topk} is less than --candidates=1000" in capsys.readouterr().out) == is_said


def test_calibrate__a_run_with_averaged_weights_goes_on_from_its_checkpoint(tmp_path):
    average = {"class_path": "lightning.pytorch.callbacks.EMAWeightAveraging"}
    if not hasattr(callbacks, "EMAWeightAveraging"):
        pytest.skip("this lightning has no averages")
    config, checkpoint = one_step(tmp_path, limit_val_batches=2, callbacks=[average], max_steps=1)
    output = tmp_path / "calibrated.ckpt"
    counts = "--calibrator=logit_adjustment"
    run(["calibrate", f"--config={config}", f"--ckpt_path={checkpoint}", counts, f"--output={output}"])
    cli = run(["fit", f"--config={config}", f"--ckpt_path={output}", "--trainer.max_steps=2"])
    assert cli.trainer.global_step == 2
