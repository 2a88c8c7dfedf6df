"""Compiled formulas: the same numbers, one kernel's worth of graph, and a way back where no compiler works."""

import contextlib
import shutil
import warnings
from dataclasses import fields, replace

import pytest
import torch

from lit_dense.functional import focal_loss, per_anchor
from lit_dense.functional.fused import anchor_loss
from lit_dense.functional.fused.anchor_loss import Chunked, Rows, chunks, compiled_formulas
from lit_dense.functional.gradient_histogram import classification_histogram
from lit_dense.losses import LOSSES
from tests.builders.chunked_functions import forget_functions
from tests.builders.losses import ready
from tests.builders.numpy_losses import random_anchors
from tests.builders.samples import samples_of

pytestmark = pytest.mark.fast_paths


@pytest.fixture(autouse=True)
def _forget_compiled():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def values_and_gradient(loss, samples, dtype=torch.float32):
    logits = samples.logits.detach().to(dtype).requires_grad_()
    values = loss(logits, samples.labels, samples)
    weights = torch.linspace(0.5, 2, len(values), device=values.device)
    return values.detach(), *torch.autograd.grad((values * weights).sum(), logits)


def graphs():
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


# without the ranking losses, which compare anchors with each other and so have no formula of single anchors
COMPILED = sorted({*LOSSES.points} - {"ap", "alrp", "rs"})
FEW_COMPILED = {"efl", "eql_v2", "federated", "focal", "ghm", "qfl", "seesaw", "softmax"}


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FEW_COMPILED else pytest.mark.slow) for name in COMPILED]
)
def test_anchor_loss__every_loss_has_the_same_numbers_and_is_compiled_once(name, dtype, traced):
    loss, compiled, seen = ready(name), ready(name), []
    for counts in ((3, 1), (3, 0, 4)):  # another number of anchors and of objects
        samples = samples_of(counts, loss=name)
        expected = values_and_gradient(loss, samples, dtype)
        with compiled_formulas(), warnings.catch_warnings():
            warnings.simplefilter("error")
            got = values_and_gradient(compiled, samples, dtype)
        torch.testing.assert_close(got, expected, rtol=1e-5 if dtype == torch.float32 else 1e-2, atol=1e-6)
        seen.append(graphs())
        loss.commit()
        compiled.commit()
        torch.testing.assert_close(compiled.state_dict(), loss.state_dict(), rtol=1e-5, atol=0)
    assert seen[0] == seen[1] > 0
    assert not torch._dynamo.utils.counters["graph_break"]


def test_anchor_loss__training_and_validation_take_turns_without_compiling_anew(traced):
    logits, labels, _ = random_anchors(0)
    seen = []
    with compiled_formulas(), warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            focal_loss(logits.clone().requires_grad_(), labels).sum().backward()
            with torch.inference_mode():
                focal_loss(logits.clone(), labels)
            with torch.no_grad():
                focal_loss(logits[:5], labels[:5])
            seen.append(graphs())
    assert seen[0] == seen[-1] > 0


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_anchor_loss__the_real_compiler_has_the_same_numbers(monkeypatch):
    forget_functions(monkeypatch)
    samples, loss = samples_of((3, 0, 4)), ready("focal")
    expected = values_and_gradient(loss, samples)
    with compiled_formulas(), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        torch.testing.assert_close(values_and_gradient(loss, samples), expected, rtol=1e-5, atol=1e-6)
    assert graphs() == 2  # forward and backward


def test_anchor_loss__warns_once_of_a_compiler_that_fails_and_goes_on_without(monkeypatch):
    def no_compiler(function):
        def fail(*args):
            raise RuntimeError("no C compiler\nin 100 lines")

        return fail

    monkeypatch.setattr(torch, "compile", no_compiler)
    forget_functions(monkeypatch)
    logits, labels, _ = random_anchors(0)
    expected = focal_loss(logits, labels)
    with compiled_formulas(), warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(2):
            torch.testing.assert_close(focal_loss(logits, labels), expected)
    assert [str(w.message) for w in seen] == ["Losses run uncompiled, slower but with the same results: no C compiler"]


def test_anchor_loss__an_error_of_a_formula_is_raised_and_does_not_switch_the_compiler_off(traced):
    def wrong(x, labels, targets):
        return Rows(x @ x, x)

    with compiled_formulas(), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            per_anchor(torch.zeros(3, 2), torch.full((3,), -1), wrong)
        assert anchor_loss._rows.compiles(torch.zeros(3, 2))


TOLD_TO = pytest.mark.skipif(not hasattr(torch.compiler, "set_stance"), reason="nobody can tell torch before 2.6")


@pytest.mark.parametrize("why", [pytest.param("told to", marks=TOLD_TO), "too often"])
def test_anchor_loss__chunks_are_small_where_pytorch_does_not_compile(why, traced, monkeypatch):
    if why == "too often":
        monkeypatch.setattr(anchor_loss, "COMPILED_AT_MOST", 1)
    told = torch.compiler.set_stance("force_eager") if why == "told to" else contextlib.nullcontext()
    sizes = []
    monkeypatch.setattr(anchor_loss, "chunks", lambda *args, **kwargs: sizes.append(kwargs) or chunks(*args, **kwargs))
    logits, labels, _ = random_anchors(0)
    with told, compiled_formulas(), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for gamma in (0.0, 1.0, 2.0):
            got = focal_loss(logits, labels, gamma=gamma)
            with compiled_formulas(False):
                torch.testing.assert_close(got, focal_loss(logits, labels, gamma=gamma))
    assert {"start": 0} in sizes


@pytest.mark.parametrize("function", [focal_loss, classification_histogram], ids=lambda f: f.__name__)
def test_anchor_loss__a_model_that_is_compiled_as_a_whole_takes_the_formulas_in(function):
    logits, labels, _ = random_anchors(0)
    expected = function(logits, labels)
    with compiled_formulas():
        whole = torch.compile(function, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(whole(logits, labels), expected)


def test_anchor_loss__several_compiled_chunks(traced, monkeypatch):
    monkeypatch.setattr(
        anchor_loss,
        "chunks",
        lambda logits, compiled=False, start=0: (slice(i, i + 16) for i in range(start, len(logits), 16)),
    )
    samples, loss = samples_of((3, 0, 4)), ready("focal")
    for dtype in (torch.float32, torch.bfloat16):
        expected = values_and_gradient(loss, samples, dtype)
        with compiled_formulas():
            torch.testing.assert_close(values_and_gradient(loss, samples, dtype), expected)
    assert graphs() > 0


def test_chunked__running_out_of_memory_does_not_switch_the_compiler_off(monkeypatch):
    def full(*args):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "compile", lambda function: full)
    function = Chunked(lambda logits: logits.sum())
    with pytest.raises(torch.cuda.OutOfMemoryError):
        list(function.over((torch.ones(3, 2),), (), compiled=True))


def test_chunked__raises_the_limit_of_compiled_graphs_only_during_its_calls(monkeypatch):
    config = torch._dynamo.config
    limit = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"  # before torch 2.6
    seen = []

    def fails(rows):
        seen.append(getattr(config, limit))
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", lambda function: fails)
    with config.patch({limit: 3}):  # pytest's own patch deletes the entry when it ends
        with pytest.warns(UserWarning, match="no compiler"):
            list(Chunked(lambda logits: logits.sum()).over((torch.ones(3, 2),), (), compiled=True))
        assert (seen, getattr(config, limit)) == ([anchor_loss.COMPILED_AT_MOST], 3)


def test_chunked__compiles_nothing_on_a_cpu_or_without_anchors():
    function = Chunked(lambda logits: logits.sum())
    assert not function.compiles(torch.zeros(2000, 1000))
    with compiled_formulas():
        assert not function.compiles(torch.zeros(0, 3))
        assert function.compiles(torch.zeros(1, 3))


@pytest.mark.parametrize("shape", [(0, 3), (1, 0), (5000, 1203), (70, 2**20)])
@pytest.mark.parametrize("compiled", [False, True])
def test_chunks__cover_all_anchors_once(shape, compiled):
    logits = torch.empty(shape, device="meta")
    rows = [i for chunk in chunks(logits, compiled) for i in range(*chunk.indices(shape[0]))]
    assert rows == list(range(shape[0]))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", COMPILED)
def test_anchor_loss__a_gpu_compiles_by_itself_and_has_the_numbers_of_the_cpu(name, dtype, monkeypatch):
    monkeypatch.setattr(anchor_loss, "WORTH_COMPILING", 1)
    forget_functions(monkeypatch)
    samples, loss = samples_of((3, 0, 4), loss=name), ready(name)
    tensors = {field.name: getattr(samples, field.name) for field in fields(samples)}
    on_gpu = replace(samples, **{name: t.cuda() for name, t in tensors.items() if isinstance(t, torch.Tensor)})
    rtol = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}[dtype]
    expected = values_and_gradient(loss, samples, dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        got = values_and_gradient(loss.cuda(), on_gpu, dtype)
    assert graphs() >= 2
    torch.testing.assert_close([t.cpu() for t in got], list(expected), rtol=rtol, atol=1e-5)
    with compiled_formulas(False):
        torch.testing.assert_close(got, values_and_gradient(loss, on_gpu, dtype), rtol=rtol, atol=1e-5)
