"""Which errors are one line and which keep their traceback: functions stand for Lightning, torch and a plug-in."""

import errno
import importlib
import pathlib
import pkgutil
import types

import lightning.pytorch
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import nn

from lit_dense.cli.user_errors import TO_AUTHORS, message_of, tracebacks_wanted
from lit_dense.core.errors import NonFiniteLossError, UsageError


def raised_in(module, body="raise ValueError('devices=0 is\\n  not accepted')", **names):
    """The error that these lines end with where they stand in a module of this name."""
    namespace = types.ModuleType(module).__dict__ | names
    exec("def fails():\n" + "\n".join(f"    {line}" for line in body.split("\n")), namespace)
    try:
        namespace["fails"]()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize(
    "module",
    [
        "lightning.pytorch.trainer.connectors.accelerator_connector",
        "lightning.pytorch.callbacks.early_stopping",
        "lightning.fabric.accelerators.cpu",
        "pytorch_lightning.trainer.trainer",
        "lightning_utilities.core.imports",
        "lightning.pytorch.loops.fit_loop",
    ],
)
@pytest.mark.parametrize("kind", ["ValueError", "RuntimeError", "TypeError", "ModuleNotFoundError", "OSError"])
def test_message_of__a_refusal_of_lightning_is_one_line(module, kind):
    assert (
        message_of(raised_in(module, f"raise {kind}('devices=0 is\\n  not accepted')")) == "devices=0 is not accepted"
    )


@pytest.mark.parametrize(
    "module",
    [
        "lightning.pytorch.tuner.lr_finder",
        "lightning.pytorch.callbacks.gradient_accumulation_scheduler",
        "pytorch_lightning.utilities.parsing",
    ],
)
@pytest.mark.parametrize("kind", ["AttributeError", "IndexError"])
def test_message_of__a_refusal_of_a_callback_or_the_tuner_by_name_or_index_is_one_line(module, kind):
    assert message_of(raised_in(module, f"raise {kind}('there is no\\n  foo')")) == "there is no foo"
    assert message_of(raised_in(module, "[].foo")) is None  # not meant
    assert message_of(raised_in(module, "[][1]")) is None


def test_message_of__a_refusal_without_words_is_its_type_and_a_key_error_its_text():
    assert message_of(raised_in("lightning.pytorch.trainer.trainer", "raise ValueError")) == "ValueError"
    text = "only the model is in it"
    assert message_of(raised_in("lightning.pytorch.trainer.trainer", f"raise KeyError('{text}')")) == text


def test_message_of__lightnings_own_exception_is_known_by_its_name():
    body = "class MisconfigurationException(Exception): pass\nraise MisconfigurationException('no GPU')"
    assert message_of(raised_in("lightning.pytorch.trainer.trainer", body)) == "no GPU"
    assert message_of(raised_in("lightning.pytorch.core.module", body)) is None


@pytest.mark.parametrize(
    ("module", "body"),
    [
        ("torch.nn.modules.conv", "raise ValueError('x')"),
        ("lit_dense.criterion", "raise ValueError('x')"),
        ("lit_dense.training.lit_detector", "raise RuntimeError('x')"),
        ("some_plugin", "raise ValueError('x')"),
        ("lightnings", "raise ValueError('x')"),
        ("lightning.pytorch.core.module", "raise ValueError('x')"),  # self.log of a module that calls it wrongly
        ("lightning.pytorch.loops.optimization.automatic", "raise ValueError('x')"),
        ("lightning.pytorch.trainer.connectors.logger_connector.result", "raise ValueError('x')"),
        ("lightning.pytorch.trainer.trainer", "{}['x']"),  # not meant
        ("lightning.pytorch.trainer.trainer", "int('x')"),
        ("lightning.pytorch.trainer.trainer", "raise AttributeError('x')"),
        ("lightning.pytorch.trainer.trainer", "raise AssertionError('x')"),
        ("lightning.pytorch.trainer.trainer", "1 / 0"),
    ],
)
def test_message_of__a_bug_keeps_its_traceback(module, body):
    assert message_of(raised_in(module, body)) is None


def test_message_of__the_innermost_code_decides():
    inside = {"torch_fails": lambda: torch.zeros(2) @ torch.zeros(3)}
    assert message_of(raised_in("lightning.pytorch.trainer.trainer", "torch_fails()", **inside)) is None
    refusal = {"refuse": lambda: Trainer(devices=0, accelerator="cpu", logger=False)}
    assert "is not a valid input" in message_of(raised_in("lit_dense.cli.lightning_cli", "refuse()", **refusal))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Trainer(accelerator="nonsense"), "You selected an invalid accelerator name"),
        (lambda: Trainer(accelerator="cpu", strategy="fsdp"), "requires a GPU accelerator"),
        (lambda: Trainer(accelerator="cpu", val_check_interval=1.5), "invalid value 1.5 for val_check_interval"),
        (lambda: Trainer(accelerator="cpu", precision="nonsense"), "Precision 'nonsense' is invalid"),
        (lambda: EarlyStopping("val_map", mode="up"), "`mode` can be min, max, got up"),
        (lambda: ModelCheckpoint(save_top_k=-5), "Invalid value for save_top_k=-5"),
    ],
)
def test_message_of__errors_of_lightning_itself_are_understood(make, said):
    with pytest.raises(Exception) as error:  # noqa: PT011 (of several types)
        make()
    assert said in message_of(error.value)


def test_to_authors__modules_exist():
    for part in ("core", "loops.optimization", "trainer.connectors.logger_connector"):
        module = importlib.import_module(f"lightning.pytorch.{part}")
        assert TO_AUTHORS.match(module.__name__)
        assert all(TO_AUTHORS.match(f"{module.__name__}.{m.name}") for m in pkgutil.iter_modules(module.__path__))
    assert lightning.pytorch.__name__ == "lightning.pytorch"


def test_message_of__finds_usage_errors_behind_those_that_wrap_them():
    for error in (UsageError("give num_classes"), NonFiniteLossError("loss is nan")):
        assert message_of(error) == str(error)
        body = "try:\n    raise inner\nexcept Exception as e:\n    raise ValueError('Parser key') from e"
        assert message_of(raised_in("jsonargparse._core", body, inner=error)) == str(error)
    body = "try:\n    raise ValueError('x')\nexcept Exception as e:\n    raise UsageError('y') from e"
    assert message_of(raised_in("lit_dense.data", body, UsageError=UsageError)) == "y"


TRACEBACK = """Caught UsageError in DataLoader worker process 0.
Original Traceback (most recent call last):
  File "worker.py", line 1, in fetch
lit_dense.core.errors.UsageError: image.png is damaged.
"""


def test_message_of__of_another_process_shows_only_the_message():
    assert message_of(UsageError(TRACEBACK)) == "image.png is damaged."
    assert message_of(RuntimeError(f"-- Process 0 terminated\n{TRACEBACK}")) == "image.png is damaged."
    assert message_of(RuntimeError("-- Process 0 terminated\nKeyError: 1")) is None


@pytest.mark.parametrize("code", [errno.EACCES, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOSPC, errno.EROFS])
def test_message_of__an_error_of_the_file_system_names_the_file(code):
    assert "'/readonly/file'" in message_of(OSError(code, "no", "/readonly/file"))
    assert message_of(OSError(code, "no")) is None


def test_message_of__a_folder_that_cannot_be_made_is_named_and_a_missing_file_of_the_package_is_a_bug(tmp_path):
    body = "pathlib.Path(path).mkdir()"
    error = raised_in("anything", body, pathlib=pathlib, path=str(tmp_path / "a" / "b"))
    assert str(tmp_path / "a" / "b") in message_of(error)
    assert message_of(raised_in("anything", "open(path)", path=str(tmp_path / "gone"))) is None


@pytest.mark.parametrize("content", [b"PK cut off", b"", b"hello"])
def test_message_of__a_checkpoint_that_lightning_chose_and_cannot_read(tmp_path, content):
    path = tmp_path / "last.ckpt"
    path.write_bytes(content)
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    with pytest.raises(Exception) as error:  # noqa: PT011 (of several types)
        trainer.strategy.load_checkpoint(path)
    assert message_of(error.value).startswith(f"{path} cannot be read as a checkpoint: it is damaged")


def test_message_of__weights_that_do_not_fit_are_counted():
    small, large = nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 3))
    with pytest.raises(RuntimeError) as error:
        large.load_state_dict(small.state_dict())
    said = message_of(error.value)
    assert said.startswith('The checkpoint\'s weights do not fit this model: Missing key(s) in state_dict: "0.weight"')
    assert "(and 1 more)" in said
    assert "..." not in said
    assert "\n" not in said
    with pytest.raises(RuntimeError) as error:
        nn.Linear(2, 3, bias=False).load_state_dict({"weight": torch.zeros(2, 2)})
    assert "more)" not in message_of(error.value)
    with pytest.raises(RuntimeError) as error:
        nn.ModuleList(nn.Linear(1, 1) for _ in range(99)).load_state_dict({})
    assert len(message_of(error.value)) < 500
    assert " ... (and" in message_of(error.value) or " ... Leave" in message_of(error.value)


def test_message_of__an_optimizer_state_that_does_not_fit_is_explained():
    one, two = ([{"params": [nn.Parameter(torch.zeros(1))]} for _ in range(n)] for n in (1, 2))
    with pytest.raises(ValueError, match="loaded state dict") as error:
        torch.optim.SGD(two, lr=1).load_state_dict(torch.optim.SGD(one, lr=1).state_dict())
    assert "Resume with the optimizer" in message_of(error.value)


@pytest.mark.parametrize(("value", "wanted"), [("true", True), ("True", True), ("false", False), ("", False)])
def test_tracebacks_wanted__can_be_asked_for(monkeypatch, value, wanted):
    monkeypatch.setenv("JSONARGPARSE_DEBUG", value)
    assert tracebacks_wanted() is wanted
