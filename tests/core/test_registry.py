import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from lit_dense.core.errors import UsageError
from lit_dense.core.registry import Registry, accepted_args
from lit_dense.losses import LOSSES, DenseLoss, FocalLoss
from lit_dense.weighters import WEIGHTERS


def test_registry__a_part_is_given_in_four_ways():
    focal = FocalLoss(gamma=1.5)
    assert LOSSES.build(focal) is focal
    assert LOSSES.build("focal").gamma == 2.0
    assert LOSSES.build({"class_path": "focal", "init_args": {"gamma": 1.5}}).gamma == 1.5
    assert LOSSES.build("lit_dense.losses.focal_loss.FocalLoss").alpha == 0.25
    assert LOSSES.build("lit_dense.losses.focal").alpha == 0.25
    assert LOSSES.build(focal.spec).gamma == 1.5


def test_registry__a_class_of_the_users_script_has_its_own_name():
    class Mine(DenseLoss):
        pass

    assert isinstance(LOSSES.build("Mine"), Mine)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "focall",
            r"Unknown loss 'focall'\. Did you mean 'focal'\? Available: alrp, ap, asl, bce, ",
        ),
        ("FocalLoss", "Did you mean 'focal'"),
        ("lit_dense.losses.nothing", "cannot be imported: .*has no attribute 'nothing'"),
        ("no_such_package.Loss", "cannot be imported: No module named 'no_such_package'"),
        ("torch.nn.Linear", "is no loss: it must be a subclass of lit_dense.losses.base.DenseLoss"),
        (
            {"class_path": "focal", "init_args": {"gama": 1}},
            r"has no argument 'gama'\. Did you mean 'gamma'\? Accepted",
        ),
        ({"class_path": "focal", "init_args": {"alpha": 2}}, r"focal: alpha must be in \[0, 1\], not 2"),
        ({"gamma": 1.5}, "given as a DenseLoss, a name or a dict with class_path"),
        (3, "given as a DenseLoss, a name or a dict with class_path"),
    ],
)
def test_registry__mistakes_are_explained(value, message):
    with pytest.raises((UsageError, TypeError), match=message):
        LOSSES.build(value)


def test_registry__a_plugin_is_found_by_name_and_imported_only_when_chosen(plugins):
    plugins("good")
    assert "my_loss" in LOSSES.points
    assert "good_plugin" not in sys.modules
    assert LOSSES.build({"class_path": "my_loss", "init_args": {"temperature": 2}}).temperature == 2
    assert WEIGHTERS.build("my_weighter").strength == 7


def test_registry__a_plugin_that_fails_to_import_does_not_affect_others(plugins):
    plugins("broken")
    LOSSES.build("focal")
    with pytest.raises(ImportError, match=r"'broken_loss' \(broken_plugin:BrokenLoss of broken-plugin 0.1\) failed"):
        LOSSES.build("broken_loss")


def test_registry__two_plugins_with_one_name_are_both_named(plugins):
    plugins("good", "clash")
    with pytest.warns(UserWarning, match="'focal' is lit_dense's own; that of clash-plugin 3.0"):
        assert type(LOSSES.build("focal")) is FocalLoss
    with pytest.raises(UsageError, match=r"Two packages claim the loss 'my_loss': clash-plugin 3.0 .*good-plugin 1.2"):
        LOSSES.build("my_loss")
    assert LOSSES.build("good_plugin.MyLoss").temperature == 1.0


def test_registry__listing_names_imports_no_torch():
    code = "import sys; from lit_dense.__main__ import main; main(['list']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert any(line.split()[:2] == ["losses", "--model.loss=focal"] for line in lines)
    assert all("lit-dense" in line for line in lines)


def points(monkeypatch, *entries):
    """A registry of losses whose package metadata has these entry points."""
    made = [EntryPoint(name, value, "lit_dense.losses") for name, value in entries]
    monkeypatch.setattr("lit_dense.core.registry.entry_points", lambda group: [p for p in made if p.group == group])
    return Registry("lit_dense.losses", "loss", DenseLoss)


def test_registry__a_name_that_is_no_identifier_is_left_out_with_a_warning(monkeypatch):
    registry = points(monkeypatch, ("my-loss", "mine:Loss"), ("focal", "lit_dense.losses.focal_loss:FocalLoss"))
    with pytest.warns(UserWarning, match="'my-loss' of an unknown package is ignored: a name must be an identifier"):
        assert list(registry.points) == ["focal"]


def test_registry__names_are_attributes_except_while_they_are_listed(monkeypatch):
    registry = points(monkeypatch, ("focal", "lit_dense.losses.focal_loss:FocalLoss"))
    assert registry.attribute("focal") is FocalLoss
    with registry.listing(), pytest.raises(AttributeError, match=r"^focal$"):
        registry.attribute("focal")
    assert registry.attribute("focal") is FocalLoss
    with pytest.raises(AttributeError, match=r"^_focal$"):
        registry.attribute("_focal")
    with pytest.raises(AttributeError, match=r"no attribute 'focall'\. Unknown loss 'focall'\. Did you mean 'focal'"):
        registry.attribute("focall")


class Needs(DenseLoss):
    def __init__(self, scale, shift, power=2):
        super().__init__()


class Forwards(FocalLoss):
    def __init__(self, extra: int = 1, **rest):
        super().__init__(**rest)


class Anything(DenseLoss):
    def __init__(self, **rest):
        super().__init__()


class Plain(DenseLoss):
    pass


def test_registry__missing_arguments_are_named():
    with pytest.raises(UsageError, match=r"Loss 'Needs' needs the argument 'scale' and 'shift'\."):
        LOSSES.build("Needs")
    with pytest.raises(UsageError, match=r"Loss 'Needs' needs the argument 'shift'\."):
        LOSSES.build({"class_path": "Needs", "init_args": {"scale": 1}})
    assert isinstance(LOSSES.build({"class_path": "Needs", "init_args": {"scale": 1, "shift": 2}}), Needs)


def test_accepted_args__are_those_of_the_constructor_and_its_bases():
    assert list(accepted_args(Needs)) == ["scale", "shift", "power"]
    assert set(accepted_args(Forwards)) == {"extra", "alpha", "gamma", "pos_weight"}
    assert accepted_args(Plain) == {}
    assert accepted_args(Anything) == {}  # nn.Module takes anything and uses nothing
    with pytest.raises(UsageError, match=r"'Forwards' has no argument 'gama'\. Did you mean 'gamma'"):
        LOSSES.build({"class_path": "Forwards", "init_args": {"gama": 1}})


def test_registry__one_part_needs_no_list_and_several_are_kept_in_order():
    names = [
        [type(w).__name__ for w in WEIGHTERS.build_list(v)] for v in ("pisa", ["pisa", "ohem"], ("ohem", "pisa"), [])
    ]
    assert names == [["PISAWeighter"], ["PISAWeighter", "OHEMWeighter"], ["OHEMWeighter", "PISAWeighter"], []]
    (part,) = WEIGHTERS.build_list(WEIGHTERS.build("pisa"))
    assert WEIGHTERS.build_list([part]) == [part]
    (given,) = WEIGHTERS.build_list({"class_path": "ohem", "init_args": {"ratio": 5}})
    assert given.ratio == 5
    with pytest.raises(TypeError, match="given as a Weighter, a name or a dict"):
        WEIGHTERS.build_list([3])


def test_registry__names_are_known():
    assert LOSSES.has("focal")
    assert LOSSES.has("Plain")
    assert not LOSSES.has("focall")


def test_registry__entry_points_of_an_installation_that_is_out_of_date_are_an_error_and_no_recursion(monkeypatch):
    old = EntryPoint("old", "lit_dense.losses:Gone", LOSSES.group)
    monkeypatch.setitem(vars(LOSSES), "points", {**LOSSES.points, "old": [old]})
    with pytest.raises(UsageError, match="Unknown loss 'nothing'"):
        LOSSES.build("nothing")
    with pytest.raises(AttributeError, match="Gone"):
        LOSSES.attribute("Gone")


def test_build__arguments_beside_init_args_are_refused():
    with pytest.raises(
        UsageError, match=r"loss has only class_path and init_args.*\{class_path: focal, init_args: \{ga"
    ):
        LOSSES.build({"class_path": "focal", "gamma": 0.0})
    with pytest.raises(UsageError, match="weighter has only class_path and init_args"):
        WEIGHTERS.build_list([{"class_path": "ohem", "ratio": 9}])
