"""What ``import lit_dense`` and ``patch`` need: torch and torchvision, and nothing else that the package installs."""

import re
import subprocess
import sys
from importlib.metadata import requires

import pytest

import lit_dense
from lit_dense.__main__ import main
from lit_dense.core.errors import IMPORT_NAMES

CORE = {"torch", "torchvision", "numpy", "pillow"}  # the last two come with torchvision
PATCH = """
import sys
for name in {blocked!r}:
    sys.modules[name] = None  # importing it fails
import lit_dense
assert "torch" not in sys.modules, "import lit_dense imports torch"
import torch
from tests.builders.detectors import random_batch, small_retinanet
model = small_retinanet()
lit_dense.patch(model, loss="bce", box_loss="giou", normalizer="batch", weighters=["pisa"], assigner="atss")
sum(model(*random_batch()).values()).backward()
lit_dense.unpatch(model)
"""


def _others():
    """What else the package installs, by the names that it is imported as."""
    names = {re.split(r"[^\w.-]", requirement)[0] for requirement in requires("lit-dense")}
    return sorted(IMPORT_NAMES.get(name, name) for name in names - CORE - {"lit-dense", "setuptools"})


def test_patch__needs_torch_and_torchvision_only():
    blocked = _others()
    assert {"jsonargparse", "matplotlib", "jinja2", "hotcoco", "msgspec", "tqdm", "lightning", "torchmetrics"} <= set(
        blocked
    )
    subprocess.run([sys.executable, "-c", PATCH.format(blocked=blocked)], check=True)


def test_name__of_a_package_that_is_missing_says_what_installs_it(monkeypatch):
    for name in [n for n in sys.modules if n.startswith("lightning.") or n.startswith("lit_dense.training")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lightning", None)
    with pytest.raises(ModuleNotFoundError, match=r"^lit_dense.LitRetinaNet: lightning is not .*pip install"):
        _ = lit_dense.LitRetinaNet


def test_name__that_is_unknown_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'lit_dense' has no attribute 'LitRetinanet'"):
        _ = lit_dense.LitRetinanet


@pytest.mark.parametrize("package", ["jsonargparse", "lightning", "matplotlib"])
def test_command_line__says_what_installs_a_missing_package(package, monkeypatch, capsys):
    class MissingField:
        def __getattr__(self, name):
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    monkeypatch.setitem(sys.modules, "lit_dense.cli.lightning_cli", MissingField())
    with pytest.raises(SystemExit, match="1"):
        main(["fit"])
    assert capsys.readouterr().err == (
        f'lit-dense: {package} is not installed, and this needs it: pip install "lit-dense" brings it.\n'
    )
