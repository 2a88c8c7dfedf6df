"""How a worker is started and what becomes of its end, with a process that stands for it."""

from types import SimpleNamespace

from lit_dense.compare import local_processes
from lit_dense.compare.files import FAILURE


def test_local__a_worker_ignores_ctrl_c_and_forgets_an_old_failure(tmp_path, monkeypatch):
    given = {}
    monkeypatch.setattr(
        local_processes.subprocess, "Popen", lambda words, **options: given.update(options, words=words)
    )
    (tmp_path / FAILURE).write_text("old")
    local_processes.Worker(tmp_path, {"A": "b"}, "/here")
    assert not (tmp_path / FAILURE).exists()
    assert given["start_new_session"] is True
    assert given["stdin"] == local_processes.subprocess.PIPE  # whose end tells the worker that nobody waits any more
    assert (given["env"], given["cwd"]) == ({"A": "b"}, "/here")
    assert given["words"][1:4] == ["-m", "lit_dense.compare.worker", str(tmp_path.resolve())]


def test_local__a_worker_is_done_when_its_process_has_ended(tmp_path, monkeypatch):
    status = SimpleNamespace(poll=lambda: None)
    monkeypatch.setattr(local_processes.subprocess, "Popen", lambda words, **options: status)
    worker = local_processes.Worker(tmp_path, {}, ".")
    assert not worker.done
    status.poll = lambda: 0
    assert worker.done
