"""The command ``lit-dense advise``: its output and the commands in it."""

import shlex
import subprocess

import pytest
import yaml

from lit_dense.__main__ import main
from lit_dense.compare.advise import Filter, command, read_training_set, report
from lit_dense.compare.command import read_words
from lit_dense.compare.plan import choose, plan
from lit_dense.core.errors import UsageError
from lit_dense.data.advice import RULES, Advice, Trial
from tests.builders.coco_files import write_noise
from tests.builders.project_files import CONFIGS
from tests.data.test_advice import BALANCED

WRONG = BALANCED._replace(
    images=10,
    federated=True,
    imbalance=500.0,
    rare_images=0.01,
    small_share=0.5,
    crowded_share=1.0,
    empty_share=0.6,
    objects_spread=1.0,
)
LARGE = WRONG._replace(small_share=0.0)


@pytest.fixture
def config(tmp_path, monkeypatch):
    write_noise(tmp_path, 8)
    monkeypatch.chdir(tmp_path)
    data = {"train_images": "train", "train_annotations": "train.json", "val_split": 0.25}
    (tmp_path / "my.yaml").write_text(yaml.safe_dump({"data": data, "trainer": {"max_epochs": 4}}))
    return "my.yaml"


@pytest.mark.slow
def test_report__the_printed_commands_are_accepted_by_compare(config):
    text = report(["--config", config, "--model.max_size=300", "--model.lr", "0.01"])
    assert "train.json:\n  images          6, without objects" in text
    assert "pixels at shorter side 800, longer 300" in text
    blocks = text.split("\n\n")[1:]
    assert 1 <= len(blocks) <= 3
    for block in blocks:
        lines = [line.strip() for line in block.splitlines() if line.startswith("    ")]
        *prepare, first, second = lines
        assert first.endswith(" \\")
        subprocess.run(["bash", "-ec", "\n".join(prepare)], check=True)  # writes the files of the runs
        words = shlex.split(first[:-1] + second)
        assert words[:2] == ["lit-dense", "compare"]
        options, extra = read_words(words[2:])
        runs, _ = plan(options.config, choose(options.runs), options.seeds, options.steps, options.validations, extra)
        assert len(runs) == 3 * len(options.runs)
        assert {run.config["model"]["lr"] for run in runs} == {0.01}
        assert runs[0].name == "as_is"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], True),
        (["--model.normalizer=batch"], False),
        (["--model.detector=fcos"], False),  # torchvision's FCOS divides by the positives of the batch
        (["--model.assigner=tal"], False),  # brings a normalizer
    ],
)
def test_read_training_set__knows_whether_images_are_divided_by_their_own_positives(config, words, expected):
    assert read_training_set([config], words)[2] is expected


def trials(figures):
    return [trial for rule in RULES if (advice := rule(figures)) for trial in advice.trials]


def test_filter__every_trial_exists_and_changes_the_demo():
    every = {t.name: t for f in (WRONG, WRONG._replace(classes=80), LARGE) for t in trials(f)}
    assert len(every) > 13
    assert Filter([str(CONFIGS / "demo.yaml")], []).usable(list(every.values())) == list(every.values())


def test_filter__leaves_out_what_is_there_ignored_refused_or_overridden(tmp_path):
    config = tmp_path / "my.yaml"
    offered = [
        Trial("ghm", {"model": {"loss": "ghm"}}),
        Trial("atss", {"model": {"assigner": "atss"}}),  # Faster R-CNN matches itself
        Trial("unknown", {"model": {"loss": "fokal"}}),
        Trial("seesaw", {"model": {"loss": "seesaw"}}),  # its head has one column of background
        Trial("nms", {"model": {"nms_thresh": 0.6}}),
        Trial("kept", {"data": {"empty_share": 0.1}}),
    ]
    config.write_text(yaml.safe_dump({"model": {"detector": "faster_rcnn", "loss": "ghm"}}))
    kept = Filter([str(config)], ["--model.nms_thresh=0.5"]).usable(offered)
    assert [trial.name for trial in kept] == ["kept"]


def test_command__quotes_and_one_folder_for_each_topic():
    advice = Advice("topic", "", "", ())
    text = command(advice, [Trial("a", {"model": {"loss": "ghm"}})], ["1.yaml", "my 2.yaml"], ["--data.root=a d"])
    assert text.splitlines() == [
        "    mkdir -p runs/advise_topic",
        """    echo '{"model": {"loss": "ghm"}}' > runs/advise_topic/a.yaml""",
        "    lit-dense compare --config 1.yaml 'my 2.yaml' --seeds 0 1 2 --out runs/advise_topic '--data.root=a d' \\",
        "      --runs 'as_is=my 2.yaml' a=runs/advise_topic/a.yaml",
    ]


def test_report__mistakes_are_named(config):
    with pytest.raises(UsageError, match="advise needs --config"):
        report([])
    with pytest.raises(UsageError, match=r"advise: unknown argument '--confi'\. Did you mean '--config'\?"):
        report(["--confi", config])


def test_main__advise_without_training_data_is_one_line(tmp_path, capsys):
    (tmp_path / "my.yaml").write_text("model: {loss: focal}")
    with pytest.raises(SystemExit) as stop:
        main(["advise", f"--config={tmp_path / 'my.yaml'}"])
    assert stop.value.code == 1
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .startswith("lit-dense: The data module needs train_annotations to fit.")
    )
