"""What each run is: words, configuration, command, folder."""

import json

import pytest
import yaml

from lit_dense.compare.configuration import differences, read_configuration
from lit_dense.compare.plan import Run, choose, plan, record
from lit_dense.core.errors import UsageError
from tests.builders.project_files import CONFIGS

DEMO = CONFIGS / "demo.yaml"
QFL = CONFIGS / "recipes" / "qfl.yaml"


def planned(*words, seeds=(0,), steps=10, validations=4, extra=(), config=DEMO):
    return plan([str(config)], choose(words), seeds, steps, validations, extra)


def test_choose__names_are_words_stems_or_given():
    names = [choice.name for choice in choose(["focal", "focal+pisa+ohem", str(QFL), f"mine={QFL}"])]
    assert names == ["focal", "focal+pisa+ohem", "qfl", "mine"]


def test_plan__a_word_takes_default_arguments_and_no_other_weighters(tmp_path):
    base = tmp_path / "base.yaml"
    described = {"loss": {"class_path": "focal", "init_args": {"gamma": 3.0}}, "weighters": ["ohem"]}
    base.write_text(yaml.safe_dump({"model": described}))
    (run, other), _ = planned("focal", "bce+pisa", config=base)
    assert run.config["model"]["loss"] == "focal"
    assert run.config["model"]["weighters"] == []
    assert (other.config["model"]["loss"], other.config["model"]["weighters"]) == ("bce", ["pisa"])


def test_plan__a_file_is_laid_over_the_common_configuration():
    (run,), _ = planned(f"mine={QFL}")
    assert (run.config["model"]["loss"], run.config["model"]["box_loss"]) == ("qfl", "giou")
    assert run.config["model"]["backbone"] == "tiny"


def test_plan__weighters_behind_a_file_are_added_to_those_of_the_file(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text("model: {assigner: atss, weighters: [{class_path: pisa, init_args: {gamma: 1.5}}]}")
    runs, _ = planned(f"{QFL}+pisa", f"{own}+ohem+swn", f"mine={own}+cleanliness")
    assert [run.name for run in runs] == ["qfl+pisa", "own+ohem+swn", "mine"]
    assert (runs[0].config["model"]["loss"], runs[0].config["model"]["weighters"]) == ("qfl", ["pisa"])
    given, *added = runs[1].config["model"]["weighters"]
    assert (given["init_args"]["gamma"], added) == (1.5, ["ohem", "swn"])
    assert (runs[1].config["model"]["assigner"], runs[2].config["model"]["assigner"]) == ("atss", None)
    assert read_configuration(runs[1].words, "it") == runs[1].config


def test_plan__a_file_may_have_a_plus_in_its_name(tmp_path):
    path = tmp_path / "a.yaml+b.yaml"
    path.write_text("model: {loss: bce}")
    (run,), _ = planned(f"{path}+pisa")
    model = run.config["model"]
    assert (run.name, model["loss"], model["weighters"]) == ("a.yaml+b+pisa", "bce", ["pisa"])


def test_plan__a_file_may_have_the_sign_between_name_and_file_in_its_name(tmp_path):
    path = tmp_path / "lr=0.1.yaml"
    path.write_text("model: {loss: bce}")
    (run,), _ = planned(f"mine={path}")
    assert (run.name, run.config["model"]["loss"]) == ("mine", "bce")
    with pytest.raises(UsageError, match=r"'lr=0\.1' is not a valid name of a run"):
        choose([str(path)])


def test_plan__a_weighter_that_assigns_replaces_the_assigner():
    (run,), _ = planned("focal+cleanliness")
    assert run.config["model"]["assigner"] is None


def test_plan__runs_come_seed_by_seed_with_seeds_of_training_and_of_data():
    runs, _ = planned("focal", "bce", seeds=(3, 1))
    assert [(run.name, run.seed) for run in runs] == [("focal", 3), ("bce", 3), ("focal", 1), ("bce", 1)]
    assert {(run.config["seed_everything"], run.config["data"]["seed"]) for run in runs} == {(3, 3), (1, 1)}
    runs, _ = planned("focal", seeds=(3, 1), extra=["--data.seed=8"])
    assert {run.config["data"]["seed"] for run in runs} == {8}


def test_plan__a_split_of_the_data_is_the_same_for_every_seed():
    runs, _ = planned("focal", seeds=(3, 1), extra=["--data.val_split=0.2", "--data.demo=false"])
    assert {run.config["data"]["seed"] for run in runs} == {0}


def test_plan__a_split_in_the_file_of_one_run_fixes_the_data_of_that_run_alone(tmp_path):
    split = tmp_path / "split.yaml"
    split.write_text("data: {val_split: 0.2, demo: false}")
    runs, _ = planned("focal", str(split), seeds=(3, 1))
    found = [(run.name, run.config["seed_everything"], run.config["data"]["seed"]) for run in runs]
    assert found == [("focal", 3, 3), ("split", 3, 0), ("focal", 1, 1), ("split", 1, 0)]
    for run in runs:
        assert read_configuration(run.words, "it") == run.config


@pytest.mark.parametrize("seeds", [(0, 0), (1, 0, 2, 0)])
def test_plan__a_seed_given_twice_is_refused(seeds):
    with pytest.raises(UsageError, match="--seeds has 0 more than once"):
        planned("focal", seeds=seeds)


@pytest.mark.parametrize(
    ("steps", "validations", "extra", "interval", "epochs"),
    [
        (10, 4, [], 3, None),  # after 3, 6 and 9, and the end
        (400, 4, [], 100, None),
        (400, 4, ["--trainer.accumulate_grad_batches=2"], 200, None),  # counted in batches
        (None, 4, [], 1.0, 2),  # the demo's 6 epochs
        (None, 4, ["--trainer.max_epochs=2"], 0.5, 1),
    ],
)
def test_plan__validations_are_spread_over_the_run(steps, validations, extra, interval, epochs):
    (run,), _ = planned("focal", steps=steps, validations=validations, extra=extra)
    trainer = run.config["trainer"]
    assert (trainer["val_check_interval"], trainer["check_val_every_n_epoch"]) == (interval, epochs)


def test_plan__a_run_with_a_length_of_its_own_is_validated_as_often(tmp_path):
    slow, long = tmp_path / "slow.yaml", tmp_path / "long.yaml"
    slow.write_text("trainer: {accumulate_grad_batches: 8}\n")
    long.write_text("trainer: {max_steps: 40, max_epochs: -1}\n")
    runs, _ = planned("focal", str(slow), validations=2, steps=20)
    assert [run.config["trainer"]["val_check_interval"] for run in runs] == [10, 80]
    runs, _ = planned("focal", str(long), validations=2, steps=None)
    assert [run.config["trainer"]["val_check_interval"] for run in runs] == [1.0, 20]
    assert read_configuration(runs[1].words, "it") == runs[1].config


@pytest.mark.parametrize("model", ["{eval_protocol: lvis}", "{eval_max_detections: 300}"])
def test_plan__a_run_with_rules_of_evaluation_of_its_own_is_refused(tmp_path, model):
    file = tmp_path / "own.yaml"
    file.write_text(f"model: {model}\n")
    option = model.strip("{}").replace(": ", "=")
    with pytest.raises(UsageError, match=f"own is evaluated with {option}.*to all runs, or leave it out"):
        planned("focal", str(file))
    assert len(planned("focal", str(file), extra=[f"--model.{option}"])[0]) == 2


def test_plan__a_run_without_an_end_is_refused():
    with pytest.raises(UsageError, match="give --steps"):
        planned("focal", steps=None, extra=["--trainer.max_epochs=-1"])


def test_plan__the_command_means_the_same_configuration():
    (run,), _ = planned("focal+pisa", seeds=(7,), extra=["--model.lr=1e-5"])
    assert run.command.startswith(f"lit-dense fit --config={DEMO} --model.loss=focal '--model.weighters=[pisa]'")
    assert read_configuration(run.words, "it") == run.config
    assert run.config["model"]["lr"] == 1e-5


def test_plan__a_configuration_reads_back_from_its_file(tmp_path):
    (run,), _ = planned(f"mine={QFL}", extra=["--model.lr=1e-5", "--model.weight_decay=1e-20"])
    path = tmp_path / "config.json"
    path.write_text(json.dumps(run.config))
    assert read_configuration([f"--config={path}"], "it") == run.config


def test_record__more_runs_and_seeds_join_those_that_exist(tmp_path):
    for words, seeds in ((["focal"], [0]), (["bce", "focal"], [0, 1])):
        runs, shared = planned(*words, seeds=seeds)
        record(tmp_path, runs, shared, None)
    found = json.loads((tmp_path / "compare.json").read_text())
    assert (found["names"], found["baseline"]) == (["focal", "bce"], "focal")
    assert len(list(tmp_path.rglob("run.json"))) == 4
    assert Run.load(tmp_path / "focal" / "seed-0").seed == 0


def test_record__another_configuration_in_the_same_folder_is_refused(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("model: {loss: {class_path: focal, init_args: {gamma: 1.0}}}")
    record(tmp_path / "out", *planned(f"mine={mine}"), None)
    with pytest.raises(UsageError, match=r"(?s)trainer.max_steps: 10 before, 20 now.*another --out"):
        record(tmp_path / "out", *planned("focal", steps=20), None)
    mine.write_text("model: {loss: {class_path: focal, init_args: {gamma: 2.0}}}")
    with pytest.raises(UsageError, match=r"(?s)mine/seed-0 has a run.*gamma: 1.0 before, 2.0 now"):
        record(tmp_path / "out", *planned(f"mine={mine}"), None)


@pytest.mark.parametrize(("text", "said"), [("{", "is damaged"), ("[]", "is not the record of"), ("{}", "is not the")])
def test_record__what_is_no_record_is_refused(tmp_path, text, said):
    runs, shared = planned("focal")
    (tmp_path / "compare.json").write_text(text)
    with pytest.raises(UsageError, match=f"compare.json {said}"):
        record(tmp_path, runs, shared, None)


def test_differences__options_of_a_later_version_are_none():
    old, new = {"model": {"lr": 1}, "data": {}}, {"model": {"lr": 1, "new": 2}, "data": {}, "more": 1}
    assert differences(old, new) == []
    assert differences(new, old) == ["model.new: 2 before, missing now", "more: 1 before, missing now"]
    assert differences({"a": {"b": 1}}, {"a": {"b": {"c": 1}}}) == [
        "a.b: 1 before, missing now",
        "a.b.c: missing before, 1 now",
    ]
