"""Names in any jsonargparse parser, which is what LightningCLI has: no Trainer is needed to see them."""

import copy
import importlib
import re
import sys
from pathlib import Path
from typing import get_args

import jsonargparse
import pytest
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from lit_dense.core.cli_types import cli_type
from lit_dense.losses import LOSSES, DenseLoss, LossLike
from lit_dense.normalizers import NormalizerLike
from lit_dense.weighters import WEIGHTERS, WeightersLike


class Module:
    """Takes parts as LitRetinaNet does."""

    def __init__(
        self, loss: LossLike = "focal", weighters: WeightersLike = (), normalizer: NormalizerLike | None = None
    ):
        self.loss, self.weighters, self.normalizer = loss, weighters, normalizer


class Tempered(DenseLoss):
    """A loss of the user's script that has an argument in common with focal."""

    def __init__(self, alpha: float = 0.7, scale: float = None, steps: tuple = (1, 2)):  # noqa: RUF013
        super().__init__()


class Untyped(DenseLoss):
    """A loss whose author wrote no types."""

    def __init__(self, alpha=0.3, gamma=None):
        super().__init__()


def parser():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Module, "model")
    return parser


def parse(*words):
    """The module that these words build, after a round trip through the file that --print_config would write."""
    config = parser().parse_args(list(words))
    text = parser().dump(config)
    again = parser().parse_string(text)
    assert parser().dump(again) == text
    return parser().instantiate_classes(again).model


def loss_of(*words):
    loss = LOSSES.build(parse(*words).loss)
    return type(loss).__name__, loss.spec["init_args"]


FOCAL = "--model.loss={class_path: focal, init_args: {alpha: 0.9, gamma: 3.0}}"
OTHERS_OF_BCE = {"label_smoothing": 0.0, "bootstrap": None, "bootstrap_beta": None}
BCE = ("BCELoss", {"alpha": 0.5, "pos_weight": 1.0, **OTHERS_OF_BCE})


@pytest.mark.parametrize(
    "word",
    [
        "--model.loss=bce",
        "--model.loss.class_path=bce",
        "--model.loss=lit_dense.losses.bce",
        "--model.loss=lit_dense.losses.bce_loss.BCELoss",
        "--model.loss={class_path: bce}",
        "--model.loss={class_path: lit_dense.losses.BCELoss, init_args: {}}",
    ],
)
def test_cli_type__a_class_that_replaces_another_takes_over_no_argument_of_it(word):
    assert loss_of(FOCAL, word) == BCE


def test_cli_type__a_class_with_arguments_takes_over_none_but_those_given():
    given = "--model.loss={class_path: bce, init_args: {pos_weight: 2}}"
    assert loss_of(FOCAL, given) == ("BCELoss", {"alpha": 0.5, "pos_weight": 2.0, **OTHERS_OF_BCE})
    focal = "--model.loss={class_path: focal, init_args: {alpha: 0.5}}"
    assert loss_of(FOCAL, focal) == ("FocalLoss", {"alpha": 0.5, "gamma": 2.0, "pos_weight": 1.0})
    assert loss_of(FOCAL, "--model.loss=Tempered") == ("Tempered", {"alpha": 0.7, "scale": None, "steps": [1, 2]})
    untyped = "--model.loss={class_path: Untyped}"
    assert loss_of(FOCAL, untyped) == ("Untyped", {"alpha": 0.3, "gamma": None})
    tempered = "--model.loss={class_path: Tempered, init_args: {scale: 2}}"
    assert loss_of(FOCAL, tempered) == ("Tempered", {"alpha": 0.7, "scale": 2.0, "steps": [1, 2]})


@pytest.mark.parametrize("word", ["--model.loss.alpha=0.5", "--model.loss={init_args: {alpha: 0.5}}"])
def test_cli_type__single_arguments_change_the_present_part(word):
    assert loss_of(FOCAL, word) == ("FocalLoss", {"alpha": 0.5, "gamma": 3.0, "pos_weight": 1.0})


@pytest.mark.parametrize("given", ["bce", "{class_path: bce}", "lit_dense.losses.bce"])
def test_cli_type__a_file_over_a_file_takes_over_no_argument(tmp_path, given):
    for name, loss in (("base", "{class_path: focal, init_args: {alpha: 0.9, gamma: 3.0}}"), ("more", given)):
        (tmp_path / f"{name}.yaml").write_text(f"model: {{loss: {loss}}}")
    reader = parser()
    reader.add_argument("--config", action="config")
    config = reader.parse_args([f"--config={tmp_path}/base.yaml", f"--config={tmp_path}/more.yaml"])
    assert LOSSES.build(reader.instantiate_classes(config).model.loss).spec["init_args"] == BCE[1]


def test_cli_type__a_name_stays_the_word_that_was_written():
    text = parser().dump(parser().parse_args(["--model.loss=bce", "--model.normalizer=ema"]))
    assert "loss: bce" in text
    assert "normalizer: ema" in text


OHEM = "--model.weighters=[{class_path: ohem, init_args: {ratio: 5, warmup_steps: 10}}]"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--model.weighters=pisa"], [("PISAWeighter", 0)]),
        (["--model.weighters={class_path: pisa}"], [("PISAWeighter", 0)]),
        (["--model.weighters={class_path: pisa, init_args: {warmup_steps: 7}}"], [("PISAWeighter", 7)]),
        (["--model.weighters=[pisa,ohem]"], [("PISAWeighter", 0), ("OHEMWeighter", 0)]),
        (["--model.weighters=pisa", "--model.weighters+=ohem"], [("PISAWeighter", 0), ("OHEMWeighter", 0)]),
        (["--model.weighters=ohem", "--model.weighters.warmup_steps=4"], [("OHEMWeighter", 4)]),
        ([OHEM, "--model.weighters=pisa"], [("PISAWeighter", 0)]),
        ([OHEM, "--model.weighters=[pisa]"], [("PISAWeighter", 0)]),
        ([OHEM, "--model.weighters=[{class_path: pisa}]"], [("PISAWeighter", 0)]),
        ([OHEM, "--model.weighters+=pisa"], [("OHEMWeighter", 10), ("PISAWeighter", 0)]),
        ([OHEM, "--model.weighters=[]"], []),
    ],
)
def test_cli_type__weighters_are_one_or_a_list(words, expected):
    weighters = WEIGHTERS.build_list(parse(*words).weighters)
    assert [(type(w).__name__, w.warmup_steps) for w in weighters] == expected


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("--model.loss=focall", "Unknown loss 'focall'. Did you mean 'focal'?"),
        ("--model.loss={class_path: focall}", "Unknown loss 'focall'. Did you mean 'focal'?"),
        ("--model.loss.class_path=focall", "Unknown loss 'focall'. Did you mean 'focal'?"),
        ("--model.loss=lit_dense.losses.focall", "Unknown loss 'focall'. Did you mean 'focal'?"),
        ("--model.loss=nowhere.Loss", "The loss 'nowhere.Loss' cannot be imported: No module named 'nowhere'"),
        ("--model.loss=torch.nn.Linear", "'torch.nn.Linear' is no loss: it must be a subclass of"),
        ("--model.loss={focal: {gamma: 1}}", "For a loss with arguments write {class_path: focal, init_args: {...}}"),
        ("--model.loss.gama=1", "Loss 'focal' has no argument 'gama'. Did you mean 'gamma'?"),
        ("--model.loss={class_path: bce, init_args: 3}", "init_args"),
        ("--model.loss.init_args.gama=1", "Loss 'focal' has no argument 'gama'. Did you mean 'gamma'?"),
        ("--model.loss={class_path: bce, init_args: {gamma: 1}}", "Loss 'bce' has no argument 'gamma'."),
        ("--model.loss={class_path: focal, init_args: {gamma: abc}}", "Expected a <class 'float'>. Got value: abc"),
        ("--model.normalizer=imag", "Unknown normalizer 'imag'. Did you mean 'image'?"),
        ("--model.weighters=pissa", "Unknown weighter 'pissa'. Did you mean 'pisa'?"),
        ("--model.weighters=[pisa, oem]", "Unknown weighter 'oem'. Did you mean 'ohem'?"),
        ("--model.weighters=pisa,ohem", "Several are written as a list, [pisa,ohem]"),
    ],
)
def test_cli_type__mistakes_are_named_with_the_nearest(word, said):
    with pytest.raises(ArgumentError) as error:
        parser().parse_args([word])
    assert said in " ".join(str(error.value).split())


def test_cli_type__an_argument_of_a_loss_inside_a_loss_is_named():
    words = ["--model.loss=federated", "--model.loss.loss=focal", "--model.loss.loss.gama=1"]
    with pytest.raises(ArgumentError, match=r"Loss 'focal' has no argument 'gama'\. Did you mean 'gamma'"):
        parser().parse_args(words)
    inner = loss_of(*words[:2], "--model.loss.loss.gamma=1")[1]["loss"]["init_args"]
    assert inner == {"alpha": 0.25, "gamma": 1.0, "pos_weight": 1.0}


BASE = get_args(LossLike)[1]
"""The virtual base class of losses."""


def test_cli_type__completes_what_names_a_class():
    given = Namespace(class_path="bce", init_args=Namespace(pos_weight=2.0))
    assert not isinstance(given, BASE)
    assert given.init_args.as_dict() == {"pos_weight": 2.0, "alpha": 0.5, **OTHERS_OF_BCE}
    plain = {"class_path": "bce"}
    assert not isinstance(plain, BASE)
    assert plain["init_args"] == BCE[1]
    plain["init_args"]["alpha"] = 0.9
    again = {"class_path": "bce"}
    assert not isinstance(again, BASE)
    assert again["init_args"] == BCE[1]
    for value in ({"init_args": {"alpha": 0.5}}, {"class_path": "nowhere.Loss"}, {}, [], 3, None, "bce"):
        before = copy.deepcopy(value)
        assert not isinstance(value, BASE)
        assert value == before


def test_cli_type__knows_its_classes():
    assert isinstance(LOSSES.build("focal"), BASE)
    assert not isinstance(LOSSES.find("focal"), BASE)  # a class is no value
    assert issubclass(LOSSES.find("focal"), BASE)
    assert issubclass(BASE, BASE)
    assert not issubclass(int, BASE)
    with pytest.raises(TypeError, match="LossLike is only an annotation"):
        BASE.__init__(None, "focal")


def test_cli_type__parts_can_be_used_in_python_without_jsonargparse(monkeypatch):
    monkeypatch.setitem(sys.modules, "jsonargparse.typing", None)
    name, base = get_args(cli_type(LOSSES, "LossLike"))
    assert (name.__name__, base.__name__) == ("LossName", "LossLike")


@pytest.fixture
def renamed_jsonargparse(tmp_path, monkeypatch):
    """jsonargparse with another word for ``serialize``, by which it tells reading and writing apart."""
    source, copy = Path(jsonargparse.__file__).parent, tmp_path / "jsonargparse"
    copy.mkdir()
    renamed = 0
    for file in source.glob("*.py"):
        text, found = re.subn(r"\bserialize\b", "to_text", file.read_text())
        (copy / file.name).write_text(text)
        renamed += found
    assert renamed > 10
    loaded = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "jsonargparse"}
    for name in loaded:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("jsonargparse")
    for name in [name for name in sys.modules if name.split(".")[0] == "jsonargparse"]:
        del sys.modules[name]
    sys.modules.update(loaded)


def test_cli_type__does_not_depend_on_names_inside_jsonargparse(renamed_jsonargparse):
    assert renamed_jsonargparse.ArgumentParser is not ArgumentParser
    parser = renamed_jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--model.loss", type=cli_type(LOSSES, "LossLike"), default="focal")
    config = parser.parse_args([FOCAL, "--model.loss=bce"])
    assert config.model.loss == "bce"
    assert parser.dump(config).split() == ["model:", "loss:", "bce"]
    changed = parser.parse_args([FOCAL, "--model.loss=bce", "--model.loss.pos_weight=2"]).model.loss
    assert changed.init_args.as_dict() == {"alpha": 0.5, "pos_weight": 2.0, **OTHERS_OF_BCE}
