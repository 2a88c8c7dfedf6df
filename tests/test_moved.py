"""What version 0.1.0 called things: it still works, and a warning says the new name."""

import importlib
import warnings

import pytest
import torch

import lit_dense
from lit_dense import callbacks
from lit_dense._moved import ELSEWHERE, MODULES, NAMES
from lit_dense.losses import LOSSES, DenseLoss, SigmoidLoss
from tests.builders.samples import samples_of


@pytest.mark.parametrize("old", MODULES)
def test_moved_module__imports_with_a_warning(old, monkeypatch):
    monkeypatch.delitem(__import__("sys").modules, f"lit_dense.{old}", raising=False)
    with pytest.warns(DeprecationWarning, match=rf"^lit_dense\.{old} is now lit_dense\.{MODULES[old]}\.$") as told:
        module = importlib.import_module(f"lit_dense.{old}")
    assert len(told) == 1
    new = importlib.import_module(f"lit_dense.{MODULES[old]}")
    public = [name for name, value in vars(new).items() if getattr(value, "__module__", None) == new.__name__]
    assert all(getattr(module, name) is getattr(new, name) for name in public)


@pytest.mark.parametrize("old", ELSEWHERE)
def test_moved_module__has_names_that_went_elsewhere(old, monkeypatch):
    module, _, name = old.rpartition(".")
    monkeypatch.delitem(__import__("sys").modules, f"lit_dense.{module}", raising=False)
    with pytest.warns(DeprecationWarning, match=rf"^lit_dense\.{module} is now"):
        found = getattr(importlib.import_module(f"lit_dense.{module}"), name)
    assert found is getattr(importlib.import_module(f"lit_dense.{ELSEWHERE[old]}"), NAMES.get(name, name))


@pytest.mark.parametrize(("module", "name"), [("lit_dense.metrics", "Elements"), ("lit_dense", "Part")])
def test_renamed__of_another_module_is_an_attribute_error_without_a_warning(module, name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(AttributeError, match=rf"module '{module}' has no attribute '{name}'"):
            getattr(importlib.import_module(module), name)


def test_moved_module__warning_names_the_line_that_imports():
    __import__("sys").modules.pop("lit_dense.samples", None)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        from lit_dense.samples import DenseSamples
    assert told[0].filename == __file__
    assert DenseSamples is lit_dense.DenseSamples


def test_moved_module__that_never_was_is_not_found():
    with pytest.raises(ModuleNotFoundError, match=r"lit_dense\.sample'"):
        importlib.import_module("lit_dense.sample")


@pytest.mark.parametrize(
    ("module", "old"),
    [("lit_dense", "Elements"), ("lit_dense.functional", "Elements"), ("lit_dense.metrics", "DetectionRows")],
)
def test_renamed__of_a_module(module, old):
    with pytest.warns(DeprecationWarning, match=rf"{module}.{old} is now called {NAMES[old]}") as told:
        found = getattr(importlib.import_module(module), old)
    assert found.__name__ == NAMES[old]
    assert told[0].filename == __file__


@pytest.mark.parametrize("old", [name for name in NAMES if name.endswith("Pictures")])
def test_renamed_callback__is_the_new_one(old):
    with pytest.warns(DeprecationWarning, match=f"The callback {old} is now called {NAMES[old]}") as told:
        callback = getattr(callbacks, old)()
    assert isinstance(callback, getattr(callbacks, NAMES[old]))
    assert told[0].filename == __file__


def test_renamed_attributes__of_samples():
    samples = samples_of()
    with pytest.warns(DeprecationWarning, match="pos_ious_with_grad"):
        assert samples.pos_live_ious.equal(samples.pos_ious_with_grad)
    values = torch.arange(len(samples.positives), dtype=torch.float32)
    with pytest.warns(DeprecationWarning, match="scatter_to_anchors"):
        assert samples.of_anchors(values).equal(samples.scatter_to_anchors(values))


def test_owns__of_a_plug_in_is_exclusive():
    with pytest.warns(DeprecationWarning, match="Mine.owns is now called exclusive"):

        class Mine(DenseLoss):
            owns = frozenset({"normalizer"})

    assert Mine().exclusive == {"normalizer"}


def test_elements__of_a_plug_in_are_its_sigmoid_terms():
    with pytest.warns(DeprecationWarning, match="Mine.elements is now called sigmoid_terms"):

        class Mine(SigmoidLoss):
            def elements(self, samples):
                return LOSSES.build("bce").sigmoid_terms(samples)

    logits, labels = torch.randn(5, 3), torch.tensor([0, 2, -1, -2, 1])
    assert Mine()(logits, labels).equal(LOSSES.build("bce")(logits, labels))
