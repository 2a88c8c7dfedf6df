"""What ``--help`` prints."""

import pytest

from lit_dense.cli.lightning_cli import run
from tests.builders.command_lines import DOORS


def help_of(door, capsys, word):
    with pytest.raises(SystemExit) as stop:
        door(["fit", word])
    assert stop.value.code == 0
    return capsys.readouterr().out


def test_cli_help__has_one_optimizer_and_addresses_the_user(capsys):
    said = help_of(run, capsys, "--help")
    assert "Lightning's Trainer: length of the run" in said
    assert "--model.optimizer" in said
    assert not {"--optimizer", "--lr_scheduler"} & {word.strip("[,").split("=")[0] for word in said.split()}


@DOORS
def test_cli_help__of_a_loss(door, capsys):
    said = help_of(door, capsys, "--model.loss.help=focal")
    assert "--model.loss.gamma" in said
    assert "Focusing exponent, at least 0" in said
    with pytest.raises(SystemExit):
        door(["fit", "--model.loss.help"])
    assert "A name (alrp, ap, asl, bce" in " ".join(capsys.readouterr().out.split())
