"""What is wrong with a command, in one line: a small parser has all kinds of options."""

from collections.abc import Sequence
from typing import Literal

import pytest
from jsonargparse import ArgumentError, Namespace
from lightning.pytorch import Callback

from lit_dense.cli.command_parser import VERBS, CommandParser
from lit_dense.core.errors import UsageError
from lit_dense.losses import LossLike
from lit_dense.weighters import WeightersLike


class Trainer:
    """Has an option for callbacks, as Lightning's."""

    def __init__(self, callbacks: list[Callback] | Callback | None = None, devices: int | None = 1):
        pass


class Model:
    """Has options of all kinds."""

    def __init__(
        self,
        loss: LossLike = "focal",
        weighters: WeightersLike = (),
        lr: float = 0.1,
        optimizer: Literal["adamw", "sgd"] = "adamw",
        milestones: Sequence[float] = (),
    ):
        pass


def parser(**arguments):
    whole, fit = (CommandParser(**arguments) for _ in range(2))
    fit.add_class_arguments(Model, "model")
    fit.add_class_arguments(Trainer, "trainer")
    fit.add_argument("--config", action="config")
    commands = whole.add_subcommands()
    commands.add_subcommand("fit", fit)
    return whole


def line_of(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        parser().parse_args(list(words))
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("--model.lrr=3", "lit-dense: unrecognized arguments: --model.lrr=3. Did you mean '--model.lr'?"),
        ("--modl.loss=bce", "Did you mean '--model.loss'?"),
        ("--model.lr=abc", "lit-dense: --model.lr: Expected a float. Got value: abc."),
        ("--trainer.devices=2.5", "lit-dense: --trainer.devices: Expected an int, not 2.5."),
        ("--model.optimizer=adam", "lit-dense: --model.optimizer: "),
        ("--model.milestones=0.7", "--model.milestones: Expected a list, [a, b]. Got value: 0.7."),
        (
            "--model.loss=focall",
            "lit-dense: --model.loss: Unknown loss 'focall'. Did you mean 'focal'? Available: alrp, ap, asl, bce",
        ),
        ("--model.loss={class_path: focall}", "lit-dense: --model.loss: Unknown loss 'focall'. Did you mean 'focal'?"),
        ("--model.loss.gama=1", "lit-dense: --model.loss: Loss 'focal' has no argument 'gama'. Did you mean 'gamma'?"),
        ("--model.loss.gamma=abc", "--gamma: Expected a float. Got value: abc."),
        (
            "--model.loss=torch.nn.Linear",
            "lit-dense: --model.loss: 'torch.nn.Linear' is no loss: it must be a subclass of",
        ),
        ("--model.weighters=[pisa,oem]", "lit-dense: --model.weighters: Unknown weighter 'oem'. Did you mean 'ohem'?"),
        ("--model.weighters+=oem", "lit-dense: --model.weighters: Unknown weighter 'oem'. Did you mean 'ohem'?"),
        ("--model.weighters=pisa,ohem", "Several are written as a list, [pisa,ohem], where a list is accepted."),
        (
            "--trainer.callbacks+=EarlyStoping",
            "--trainer.callbacks: Expected a dot import path string: EarlyStoping. Did you",
        ),
        ("--trainer.callbacks+=EarlyStoping", "Did you mean 'EarlyStopping'?"),
        (
            "--model.loss=[focal,ghm]",
            "--model.loss: Expected one name, or {class_path: NAME, init_args: {...}}, not ['focal', 'ghm'].",
        ),
        ("--model.loss={}", "--model.loss: Expected one name, or {class_path: NAME, init_args: {...}}, not {}."),
        ("--model.loss.pos_weight=x", "--pos_weight: Expected a float, not x."),
        ("--config=nowhere.yaml", "nowhere.yaml"),
        ("stray", "lit-dense: unrecognized arguments: stray."),
    ],
)
def test_command_parser__a_mistake_is_one_line_with_the_nearest(capsys, word, said):
    line = line_of(capsys, "fit", word).replace("Unrecognized", "unrecognized")
    assert said in line
    assert "Union subtypes" not in line
    assert "class '" not in line


def test_command_parser__choices_have_nearest_matches():
    said = "Parser key \"model.optimizer\":\n  Expected a typing.Literal['adamw', 'sgd']. Got value: adam"
    line = "--model.optimizer: Expected one of 'adamw', 'sgd'. Got value: adam. Did you mean 'adamw'?"
    assert CommandParser()._one_line(said) == line


def test_command_parser__a_list_is_named_if_nothing_else_is_expected():
    said = (
        "Does not validate against any of the Union subtypes\nSubtypes: [collections.abc.Sequence[float], NoneType]\n"
        "Errors:\n  - Expected a <class 'collections.abc.Sequence'>\n  - Expected a <class 'NoneType'>\n"
        "Given value type: NestedArg\nGiven value: NestedArg(key='focaler', val='x')"
    )
    assert CommandParser()._one_line(said) == "Expected a list, [a, b], not 'x'."


def test_command_parser__subcommands_have_nearest_matches(capsys):
    assert "Did you mean 'fit'?" in line_of(capsys, "fitt")
    assert VERBS[:4] == ("fit", "validate", "test", "predict")
    assert VERBS[4:] == ("check", "calibrate", "analyze", "export", "convert", "compare", "advise", "list")


def test_command_parser__keys_of_a_file_have_nearest_matches(capsys, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("model: {lrr: 3}")
    line = line_of(capsys, "fit", f"--config={path}")
    assert "'model.lrr'. Did you mean 'model.lr'?" in line
    path.write_text("model: {loss: focall}")
    assert "lit-dense: --model.loss: Unknown loss 'focall'. Did you mean 'focal'?" in line_of(
        capsys, "fit", f"--config={path}"
    )


@pytest.mark.parametrize("text", ["model: {lr: 3}\nmodel: {loss: bce}", "model: {lr: 3,\n  lr: 4}"])
def test_command_parser__a_key_that_a_file_gives_twice_is_an_error(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"c\.yaml, line 2: the key (model|lr) was given in line 1 already"):
        parser().parse_args(["fit", f"--config={path}"])


def test_command_parser__the_files_of_sections_are_checked_too(tmp_path):
    (tmp_path / "c.yaml").write_text("model: m.yaml")
    (tmp_path / "m.yaml").write_text("lr: 3\nlr: 4\n")
    with pytest.raises(UsageError, match=r"m\.yaml, line 2: the key lr was given in line 1 already"):
        parser().parse_args(["fit", f"--config={tmp_path}/c.yaml"])
    (tmp_path / "m.yaml").write_text("lr: 3\n")
    assert parser().parse_args(["fit", f"--config={tmp_path}/c.yaml"]).fit.model.lr == 3


def test_command_parser__a_folder_is_no_configuration(capsys, tmp_path):
    assert "--config: Path is not a file" in line_of(capsys, "fit", f"--config={tmp_path}")


def test_command_parser__an_old_mistake_is_not_reported_again(capsys):
    line_of(capsys, "fit", "--model.loss=focall")
    assert "focall" not in line_of(capsys, "fit", "--model.lr=abc")


def test_command_parser__without_exit_raises_the_line():
    fit = CommandParser(exit_on_error=False)
    fit.add_class_arguments(Model, "model")
    with pytest.raises(ArgumentError, match=r"^--model.lr: Expected a float. Got value: abc\.$"):
        fit.parse_args(["--model.lr=abc"])


def test_command_parser__debugging_shows_the_message_of_jsonargparse(monkeypatch):
    monkeypatch.setenv("JSONARGPARSE_DEBUG", "true")
    with pytest.raises(ArgumentError, match="Does not validate against any of the Union subtypes"):
        parser().parse_args(["fit", "--model.loss=focall"])


def test_command_parser__correct_arguments_pass():
    assert isinstance(parser().parse_args(["fit", "--model.lr=0.5"]), Namespace)
