"""Both evaluators have the same numbers, and one is taken where the other cannot be used."""

import dataclasses
import logging
import sys
from types import SimpleNamespace

import hotcoco
import numpy as np
import pycocotools.cocoeval
import pytest

from lit_dense.core.errors import UsageError
from lit_dense.metrics import DetectionMAP, backends, resampled_ap
from lit_dense.metrics.backends import load_backend, self_check, with_backend
from lit_dense.metrics.backends.base import Tables
from lit_dense.metrics.evaluation import evaluate
from tests.builders.detection_images import NAMES, make_images, random_rows, update

BOTH = ("hotcoco", "pycocotools")


@pytest.fixture(autouse=True)
def _nothing_is_remembered():
    """What was checked and said before."""

    def forget():
        for function in (backends._made, backends._fault, backends._say_once):
            function.cache_clear()

    forget()
    yield
    forget()


# Equal numbers


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("protocol", ["coco", "lvis"])
def test_backends__tables_of_both_are_equal(protocol, seed):
    rows, classes = random_rows(seed, lvis=protocol == "lvis")
    rng = np.random.default_rng(seed)
    limits = [int(rng.choice([3, 5, 300]))]
    if protocol == "coco":
        limits = sorted(rng.choice([1, 2, 3, 5, 10, 100], int(rng.integers(1, 5)), replace=False).tolist())
    first, second = (load_backend(name).tables(rows, classes, protocol, limits) for name in BOTH)
    for name, values in vars(first).items():
        np.testing.assert_allclose(values, getattr(second, name), rtol=0, atol=1e-12)
    assert first.precision.shape == first.scores.shape == (10, 101, len(classes), 4)
    assert first.recall.shape == (10, len(classes), 4, len(limits))


@pytest.mark.parametrize("seed", range(20))
def test_backends__matches_of_both_are_equal(seed):
    rows, classes = random_rows(seed)
    first, second = (
        {(one.label, one.image): one for one in load_backend(name).matches(rows, classes, 5)} for name in BOTH
    )
    assert sorted(first) == sorted(second)
    for place, one in first.items():
        for name, value in vars(one).items():
            assert np.array_equal(value, getattr(second[place], name))


@pytest.mark.parametrize("protocol", ["coco", "lvis"])
def test_evaluate__is_equal_with_both_backends(protocol):
    rows, classes = random_rows(9, lvis=protocol == "lvis")
    limits = (1, 10, 100) if protocol == "coco" else (3,)
    groups = {"rare": [0], "common": [1, 2]}
    first, second = (evaluate(rows, classes, protocol, limits, groups, 0.3, name) for name in BOTH)
    assert first.numbers == pytest.approx(second.numbers, abs=1e-12)
    assert list(first.numbers) == list(second.numbers)
    for name in ("ap", "ap_50", "precision_50", "scores_50", "confusion"):
        np.testing.assert_allclose(getattr(first, name), getattr(second, name), atol=1e-12)


def test_evaluate__of_rows_has_their_numbers_and_the_rows():
    rows, classes = random_rows(9)
    found = evaluate(rows, classes)
    names = classes.values()
    assert found.class_names == tuple(names)
    assert found.ap.tolist() == [found.numbers[f"map/{name}"] for name in names]
    assert found.ap_50.tolist() == [found.numbers[f"map_50/{name}"] for name in names]
    assert found.ap_50 == pytest.approx(found.precision_50.mean(1))
    assert found.rows is rows


def test_evaluate__lvis_counts_the_best_detections_of_an_image_with_both_backends():
    rows, classes = random_rows(9, lvis=True)
    cut = [evaluate(rows, classes, "lvis", (3,), backend=name).numbers for name in BOTH]
    assert cut[0] == pytest.approx(cut[1], abs=1e-12)
    whole = evaluate(rows, classes, "lvis", (300,)).numbers
    assert cut[0]["map"] != whole["map"]


def test_resampled_ap__is_that_of_the_other_backend(monkeypatch):
    metric = DetectionMAP(NAMES)
    update(metric, make_images(12))
    metric.compute()
    counts = np.random.default_rng(0).multinomial(12, np.full(12, 1 / 12), size=3)
    first = resampled_ap(metric.evaluation.rows, counts, len(NAMES))
    monkeypatch.setitem(sys.modules, "hotcoco", None)
    second = resampled_ap(metric.evaluation.rows, counts, len(NAMES))
    assert (first.ap.tolist(), first.ap_50.tolist()) == (second.ap.tolist(), second.ap_50.tolist())


def test_evaluate__without_images_and_without_classes():
    rows = random_rows(0)[0]
    empty = rows.where(np.zeros(len(rows.images), bool))
    nothing = dataclasses.replace(empty, image_ids=empty.image_ids[:0])
    for found in (empty, nothing):
        for classes in ({0: "a", 1: "b"}, {}):
            first, second = (evaluate(found, classes, backend=name) for name in BOTH)
            assert first.numbers == second.numbers
            assert set(first.numbers.values()) == {-1}


def test_evaluate__pycocotools_prints_nothing(capsys):
    evaluate(*random_rows(9), backend="pycocotools")
    assert capsys.readouterr() == ("", "")


# The choice


def compute(**arguments):
    metric = DetectionMAP(NAMES, **arguments)
    update(metric, make_images(8))
    return {name: value.item() for name, value in metric.compute().items()}


def test_backend__the_fast_one_is_taken_without_a_message(caplog, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools.cocoeval", None)
    compute()
    assert caplog.records == []


def test_backend__without_hotcoco_the_other_is_taken_with_one_message(caplog, monkeypatch):
    expected = compute()
    monkeypatch.setitem(sys.modules, "hotcoco", None)
    with caplog.at_level(logging.WARNING):
        assert compute() == pytest.approx(expected, abs=1e-12)
        compute()
    (record,) = caplog.records
    assert "hotcoco cannot be used: ModuleNotFoundError" in record.message
    assert "Using pycocotools instead" in record.message


class Wrapped:
    """hotcoco's evaluator, from which classes that are broken derive: it cannot be derived from itself."""

    original = hotcoco.COCOeval

    def __init__(self, *args, **kwargs):
        self._right = self.original(*args, **kwargs)

    def __getattr__(self, name):
        return getattr(self._right, name)


class Wrong(Wrapped):
    """An evaluator one of whose tables is wrong."""

    table, change = "precision", staticmethod(lambda values: values * 0.99)

    @property
    def eval(self):
        found = dict(self._right.eval)
        found[self.table] = self.change(found[self.table].copy())
        return found


def forgets_limits(values):
    values[..., 0] = values[..., -1]
    return values


def swaps_classes(values):
    return values[:, ::-1] if values.ndim == 4 else values[:, :, ::-1]


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("precision", lambda values: values * 0.99),
        ("precision", lambda values: np.abs(values)),
        ("precision", swaps_classes),
        ("recall", forgets_limits),
        ("recall", lambda values: values + 1e-4),
        ("scores", lambda values: values * 0),
    ],
)
def test_backend__one_with_wrong_numbers_is_not_taken(caplog, monkeypatch, table, change):
    expected = compute()
    broken = type("Broken", (Wrong,), {"table": table, "change": staticmethod(change)})
    monkeypatch.setattr(hotcoco, "COCOeval", broken)
    assert compute() == pytest.approx(expected, abs=1e-12)
    (record,) = caplog.records
    assert "hotcoco cannot be used: its COCO results on a test case are wrong" in record.message


def test_self_check__finds_wrong_lvis_numbers_and_wrong_matches(monkeypatch):
    right = load_backend("hotcoco")

    def fault(tables=right.tables, matches=right.matches):
        return self_check.find_fault(SimpleNamespace(tables=tables, matches=matches))

    def as_coco(rows, classes, protocol, limits):
        return right.tables(rows, classes, "coco", limits)

    def changed(one, **values):
        return type(one)(**{**vars(one), **values})

    assert fault() == ""
    assert fault(tables=as_coco) == "its LVIS results on a test case are wrong"
    assert fault(tables=lambda *args: Tables(*(v[..., :1] for v in vars(right.tables(*args)).values()))) != ""
    assert fault(matches=lambda *args: right.matches(*args)[:-1]) == "it loses images or objects of a test case"
    assert "loses" in fault(matches=lambda *args: [changed(m, num_objects=1) for m in right.matches(*args)])
    for name in ("matched", "ignored", "scores"):
        for turned in ("matched", "ignored", "scores"):
            wrong = [changed(m, **{turned: getattr(m, turned)[..., ::-1]}) for m in right.matches(*self_check_input())]
            assert fault(matches=lambda *args, wrong=wrong: wrong) == "its matches on a test case are wrong"
        wrong = [changed(m, **{name: getattr(m, name) * 0}) for m in right.matches(*self_check_input())]
        assert fault(matches=lambda *args, wrong=wrong: wrong) == "its matches on a test case are wrong"


def self_check_input():
    rows = self_check.scene()
    return rows.where(rows.kinds < 3), self_check.CLASSES, self_check.LIMITS[-1]


def test_backend__one_that_raises_is_not_taken(caplog, monkeypatch):
    expected = compute()

    class PanicException(BaseException):
        """What Rust code raises; no handler of exceptions sees it."""

    def fails(self):
        raise PanicException("index out of bounds")

    monkeypatch.setattr(hotcoco, "COCOeval", type("Fails", (Wrapped,), {"accumulate": fails}))
    assert compute() == pytest.approx(expected, abs=1e-12)
    assert "hotcoco cannot be used: RuntimeError: hotcoco: index out of bounds" in caplog.text


def test_with_backend__one_that_fails_only_on_the_data_is_not_taken(caplog):
    done = []

    def evaluation(backend):
        done.append(backend.name)
        if backend.name == "hotcoco":
            raise OverflowError("too many")
        return 7

    assert with_backend(None, evaluation) == 7
    assert done == ["hotcoco", "pycocotools"]
    assert "hotcoco cannot be used: OverflowError: too many" in caplog.text
    with pytest.raises(OverflowError):
        with_backend("hotcoco", evaluation)


def test_with_backend__keyboard_interrupt_is_passed_on():
    def interrupted(backend):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        with_backend(None, interrupted)


def test_self_check__is_made_once(monkeypatch):
    checked = []
    monkeypatch.setattr(backends, "find_fault", lambda backend: checked.append(backend.name) or "")
    for _ in range(3):
        load_backend("hotcoco")
        load_backend("pycocotools")
    assert checked == ["hotcoco", "pycocotools"]


def test_backend__one_asked_for_is_used_or_refused_at_once(monkeypatch):
    expected = compute()
    monkeypatch.setitem(sys.modules, "hotcoco", None)
    assert compute(backend="pycocotools") == pytest.approx(expected, abs=1e-12)
    with pytest.raises(UsageError, match=r"backend='hotcoco' cannot be used: ModuleNotFoundError.*pip install hotcoco"):
        DetectionMAP(NAMES, backend="hotcoco")
    with pytest.raises(UsageError, match="backend must be one of hotcoco, pycocotools, not 'faster_coco_eval'"):
        DetectionMAP(NAMES, backend="faster_coco_eval")


def test_backend__pycocotools_asked_for_evaluates_though_hotcoco_works(monkeypatch):
    monkeypatch.setattr(hotcoco, "COCOeval", None)
    assert compute(backend="pycocotools")["map"] > 0


def test_backend__without_any_both_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "hotcoco", None)
    monkeypatch.setattr(pycocotools.cocoeval, "COCOeval", Wrong)
    with pytest.raises(UsageError, match=r"no evaluator can be used: hotcoco: Module.*; pycocotools: .*pip install"):
        compute()
