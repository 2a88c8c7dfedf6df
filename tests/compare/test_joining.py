"""Joining of results: what belongs together, what is refused in which words, and which runs are missing."""

from copy import deepcopy
from pathlib import Path

import pytest

from lit_dense.compare import joining
from lit_dense.compare.committed import Committed
from lit_dense.compare.joining import comparable, data_notes, join, missing
from lit_dense.compare.plan import Run
from lit_dense.core.errors import UsageError
from tests.builders.comparisons import DATA, VERSIONS

SHARED = {
    "seed_everything": 0,
    "trainer": {"max_steps": 100, "default_root_dir": "runs", "callbacks": None},
    "model": {"loss": "focal", "lr": 0.1},
    "data": {"root": "sets", "batch_size": 4, "seed": 0, "train_annotations": "a.json"},
    "predictions": {"path": "p.json"},
    "validations": 4,
}


def result(name="focal", seed=0, place="a", ap=0.5, data=DATA, shared=SHARED, changes=None, **facts) -> Committed:
    facts = {fact.replace("_", "-"): value for fact, value in facts.items()}
    found = {"numbers": {"map": ap}, "versions": {**VERSIONS, **facts}}
    changes = {"seed_everything": seed, **(changes or {})}
    return Committed(Path(f"{place}/{name}-seed-{seed}.json"), name, seed, [], shared, changes, found, data, {})


def changed(content, *keys, to):
    content = deepcopy(content)
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = to
    return content


def refused(*results, **options) -> str:
    with pytest.raises(UsageError) as stop:
        join(results, **options)
    return str(stop.value)


def test_join__results_of_two_machines_are_one_comparison():
    results = [result("focal", 0), result("focal", 1, "b"), result("ghm", 0, "b"), result("ghm", 1)]
    assert join(results) == (results, [])
    assert join([]) == ([], [])


def test_join__a_result_that_is_in_two_folders_is_taken_once():
    first, again = result(place="a"), result(place="b")
    assert join([first, again])[0] == [first]


def test_join__a_run_that_two_machines_trained_is_refused():
    said = (
        "--results: focal, seed 0 has two results: a/focal-seed-0.json (AP 0.5000) and b/focal-seed-0.json (AP 0.5100)."
    )
    assert refused(result(), result(place="b", ap=0.51)) == f"{said} Remove one."


@pytest.mark.parametrize(("fact", "value"), [("code", "0ther"), ("lit_dense", "0.2.0"), ("torch", "2.8.0")])
def test_join__versions_that_decide_numbers_are_not_mixed(fact, value):
    name = fact.replace("_", "-")
    both = f"{name} {VERSIONS[name]} (focal seed 0), {value} (ghm seed 0, ghm seed 1)"
    results = [result(), result("ghm", 0, "b", **{fact: value}), result("ghm", 1, "b", **{fact: value})]
    assert refused(*results) == (
        f"--results: results of different versions are not joined: {both}. A difference of versions can be a "
        "difference of numbers. Train again with one version, or give --mix-versions; the report then says so."
    )
    said = f"Results of different versions are joined, so a difference can come from the version: {both}."
    assert join(results, mix_versions=True) == (results, [said])


def test_join__the_builds_of_torch_for_several_devices_are_one_version():
    assert join([result(), result("ghm", torch="2.9.0+cu128", torchvision="0.24.0+cpu")])[1] == []


def test_join__code_of_an_interrupted_run_is_another_code():
    assert "code c0de (focal seed 0), c0de+0ther (ghm seed 0)" in refused(result(), result("ghm", code="c0de+0ther"))


def test_join__lesser_versions_are_only_said():
    notes = join([result(), result("ghm", python="3.12")])[1]
    assert notes == ["The runs differ in the version of python: 3.11 (focal seed 0), 3.12 (ghm seed 0)."]


def test_join__results_of_an_earlier_version_do_not_mix_with_others_but_with_each_other():
    old = [result(name) for name in ("focal", "ghm")]
    for one in old:
        del one.found["versions"]["code"]
    notes = ["The code of the runs is not recorded, because they are of an earlier version: it may differ."]
    assert join(old) == (old, notes)
    assert "code not recorded (focal seed 0, ghm seed 0), c0de (bce seed 0)" in refused(*old, result("bce"))


def test_join__many_runs_of_a_version_are_counted():
    results = [*(result("focal", seed) for seed in range(6)), result("ghm", code="x")]
    assert "code c0de (focal seed 0, focal seed 1, focal seed 2 and 3 more), x (ghm seed 0)" in refused(*results)


@pytest.mark.parametrize(("split", "name"), [("train", "training set"), ("val", "validation set")])
def test_join__other_data_is_refused_also_with_mixed_versions(split, name):
    other = changed(DATA, split, to={"images": 1206, "boxes": 2, "digest": "77", "image_bytes": 4})
    one = DATA[split]
    assert refused(result(), result("ghm", place="b", data=other), mix_versions=True) == (
        f"--results: results of different data are not joined: the {name} of a/focal-seed-0.json has "
        f"{one['images']} images and {one['boxes']} boxes (digest {one['digest']}), that of b/ghm-seed-0.json 1,206 "
        "images and 2 boxes (digest 77). Train them on the same data, or report them separately."
    )


def test_join__image_files_of_another_size_are_only_said():
    notes = join([result(), result("ghm", data=changed(DATA, "val", "image_bytes", to=7))])[1]
    assert notes == [
        "The image files of the validation set differ in size between focal seed 0 and ghm seed 0: the images may have "
        "been encoded again."
    ]


def test_data_notes__runs_of_one_folder_on_data_that_changed_are_said():
    other = changed(DATA, "train", to={"images": 1206, "boxes": 2, "digest": "77", "image_bytes": 4})
    own = result("own", data=other, changes={"data": {"train_annotations": "clean.json"}})
    assert data_notes([result(), result(seed=1), own, result("old", data=None)]) == []
    one = DATA["train"]
    assert data_notes([result(), result(seed=1), result("ghm", data=other)]) == [
        f"The training set changed between runs: {one['images']} images and {one['boxes']} boxes (digest "
        f"{one['digest']}) (focal seed 0, focal seed 1), 1,206 images and 2 boxes (digest 77) (ghm seed 0). "
        "A difference can come from the data."
    ]


def test_join__data_that_is_not_recorded_is_refused_with_the_cure():
    said = refused(result(), result("ghm", data=None))
    assert said.startswith("--results: the data of a/ghm-seed-0.json is not recorded, because its run is of an earlier")
    assert "Repeat lit-dense compare --out with the folder of the run" in said


def test_join__a_configuration_may_name_data_of_its_own_but_all_its_seeds_have_it():
    own, other = (changed(DATA, "train", "digest", to=digest) for digest in ("clean", "else"))
    changes = {"data": {"train_annotations": "clean.json"}}
    results = [result(), result("clean", 0, data=own, changes=changes), result("clean", 1, data=own, changes=changes)]
    assert join(results)[0] == results
    assert "results of different data" in refused(*results, result("clean", 2, data=other, changes=changes))
    assert "results of different data" in refused(*results, result("ghm", data=own))
    assert "results of different data" in refused(result(), result("ghm", data=own, changes={"data": {"seed": 3}}))


def test_join__another_common_configuration_is_refused():
    shared = changed(SHARED, "trainer", "max_steps", to=200)
    assert refused(result(), result("ghm", place="b", shared=shared)) == (
        "--results: the common configuration differs between a/focal-seed-0.json (before) and b/ghm-seed-0.json "
        "(now):\n  trainer.max_steps: 100 before, 200 now\n"
        "Join only results of one configuration, or name the runs differently."
    )
    assert "validations: 4 before, 8 now" in refused(result(), result(shared=changed(SHARED, "validations", to=8)))


def test_join__one_name_has_one_configuration():
    said = refused(result("mine", 0, changes={"model": {"lr": 0.2}}), result("mine", 1, "b"))
    assert "run 'mine' differs between a/mine-seed-0.json (before) and b/mine-seed-1.json (now)" in said
    assert "model.lr: 0.2 before, 0.1 now" in said
    seeds = [result("mine", seed, changes={"data": {"seed": seed}}) for seed in (0, 1)]
    assert join(seeds)[0] == seeds


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("data", "root"), ".../elsewhere"),
        (("data", "train_annotations"), "b.json"),
        (("data", "num_workers"), 4),
        (("trainer", "default_root_dir"), "x"),
        (("predictions", "path"), "x"),
        (("model", "option_of_a_later_version"), 3),
        (("trainer", "callbacks"), [{"class_path": "lit_dense.callbacks.LossPictures", "init_args": {}}]),
    ],
)
def test_join__places_and_plots_may_differ(keys, value):
    results = [result(), result("ghm", shared=changed(SHARED, *keys, to=value))]
    assert join(results) == (results, [])
    assert join(results[::-1]) == (results[::-1], [])


def test_join__places_of_joined_data_may_differ_and_its_classes_may_not():
    def joined(**source):
        return changed(SHARED, "data", "join", to=[{"root": ".../a", "train_annotations": "a.json", **source}])

    first = result(shared=joined())
    assert join([first, result("ghm", shared=joined(root=".../b", train_annotations="b.json"))])[1] == []
    assert "data.join" in refused(first, result("ghm", shared=joined(not_annotated=["cat"])))


def test_comparable__callbacks_that_train_count():
    def callbacks(*paths):
        return comparable({"trainer": {"callbacks": [{"class_path": path} for path in paths]}})["trainer"]["callbacks"]

    plots = ("lit_dense.callbacks.DetectionPictures", "lit_dense.callbacks.LossPlots", "lightning.x.ModelCheckpoint")
    assert callbacks(*plots, *plots) is None
    assert callbacks(*plots, "my.Averaging") == [{"class_path": "my.Averaging"}]
    assert comparable({"trainer": {"callbacks": "my.Averaging"}})["trainer"]["callbacks"] == ["my.Averaging"]


@pytest.fixture
def planned(monkeypatch):
    """Runs of two names and two seeds, whose data is read from no file."""
    monkeypatch.setattr(joining, "read_fingerprints", lambda options, folder, prepare: reads.append(options) or DATA)
    monkeypatch.setattr(joining, "versions", lambda: VERSIONS)
    reads: list[dict] = []
    config = {name: value for name, value in SHARED.items() if name != "validations"}
    runs = [Run(n, s, [], {**config, "seed_everything": s}, "/w") for n in ("focal", "ghm") for s in (0, 1)]
    return runs, reads


def test_missing__are_the_runs_without_a_result(planned):
    runs, reads = planned
    assert missing(runs, SHARED, [result("focal", 1), result("bce", 7)]) == [runs[0], *runs[2:]]
    assert len(reads) == 1
    assert missing(runs[:2], SHARED, [result("focal", 0), result("focal", 1, "b")]) == []
    assert len(reads) == 1


def test_missing__what_could_not_be_joined_is_refused_before_training(planned, monkeypatch):
    runs, _ = planned
    with pytest.raises(UsageError, match=r"code 0ld \(focal seed 0\), c0de \(focal seed 1, ghm seed 0, ghm seed 1\)"):
        missing(runs, SHARED, [result(code="0ld")])
    assert missing(runs, SHARED, [result(code="0ld")], mix_versions=True) == runs[1:]
    with pytest.raises(UsageError, match=r"(?s)a/focal-seed-0.json \(before\) and this command.*max_steps: 200 before"):
        missing(runs, SHARED, [result(shared=changed(SHARED, "trainer", "max_steps", to=200))])
    with pytest.raises(UsageError, match=r"(?s)run 'focal' differs.*this command.*lr: 0.2 before, 0.1 now"):
        missing(runs, SHARED, [result(changes={"model": {"lr": 0.2}})])
    with pytest.raises(UsageError, match=r"different data.*that of this command"):
        missing(runs, SHARED, [result(data=changed(DATA, "val", "digest", to="x"))])
