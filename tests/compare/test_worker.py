"""What a run of a comparison says when it ends, without training one."""

import pytest
import torch

from lit_dense.compare import worker
from lit_dense.core.errors import NonFiniteLossError, UsageError


@pytest.mark.parametrize("error", [UsageError("give num_classes"), NonFiniteLossError("classification = nan")])
def test_worker__a_users_mistake_is_one_line(monkeypatch, capsys, tmp_path, error):
    def train(folder):
        assert folder == tmp_path.resolve()
        raise error

    monkeypatch.setattr(worker, "train", train)
    assert worker.main([str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"lit-dense: {error}\n"


def test_worker__a_bug_keeps_its_traceback_and_success_is_0(monkeypatch, tmp_path):
    monkeypatch.setattr(worker, "train", lambda folder: {}["missing"])
    with pytest.raises(KeyError, match="missing"):
        worker.main([str(tmp_path)])
    monkeypatch.setattr(worker, "train", lambda folder: None)
    assert worker.main([str(tmp_path)]) == 0


def test_worker__a_damaged_checkpoint_of_a_run_says_how_to_begin_again(tmp_path):
    path = tmp_path / "last.ckpt"
    path.write_bytes(b"PK cut off")
    with pytest.raises(UsageError, match=r"last.ckpt cannot be read .* Delete it to begin this run again\.$"):
        worker._check_own(path)
    content = {"pytorch-lightning_version": "2.6", "state_dict": {}, "lit_dense": {}}
    torch.save(content, path)
    worker._check_own(path)
