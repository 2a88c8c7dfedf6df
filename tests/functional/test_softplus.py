"""Tests of softplus and log1p."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_dense.functional.softplus import WORTH_MAPPING, log1p, power, softplus

SMALLEST_NORMAL = {torch.float32: 2.0**-126, torch.float64: 2.0**-1022}


def exact(x: float) -> float:
    """Softplus of a number, from Python's mathematics."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 2e-7), (torch.float64, 1e-15)])
def test_softplus__relative_error_over_the_whole_range(dtype: torch.dtype, bound: float) -> None:
    limit = 87.0 if dtype == torch.float32 else 700.0
    x = torch.cat(
        [torch.linspace(-limit, limit, 20_001), torch.logspace(-40, 2, 5_001), -torch.logspace(-40, 1, 5_001)]
    )
    x = x.to(dtype)
    expected = torch.tensor([exact(number) for number in x.double().tolist()], dtype=torch.float64)
    error = ((softplus(x).double() - expected) / expected).abs()
    assert error.max() <= bound, x[error.argmax()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_softplus__below_the_smallest_normal_number_the_absolute_error_is_negligible(dtype: torch.dtype) -> None:
    x = torch.linspace(-1000.0, -88.0, 913, dtype=dtype)
    expected = torch.tensor([exact(number) for number in x.double().tolist()], dtype=torch.float64)
    assert (softplus(x).double() - expected).abs().max() <= SMALLEST_NORMAL[torch.float32] / 2**20


def test_softplus__compiled_without_autograd_has_the_told_precision() -> None:
    x = torch.cat([torch.linspace(-87, 87, 20_001), torch.logspace(-40, 2, 5_001), -torch.logspace(-40, 1, 5_001)])
    with torch.no_grad():
        compiled = torch.compile(softplus, backend="aot_eager", fullgraph=True)(x)
        special = torch.tensor([math.nan, math.inf, -math.inf, 0.0, 1e5, -1e5])
        found = torch.compile(softplus, backend="aot_eager", fullgraph=True)(special)
    expected = torch.tensor([exact(number) for number in x.double().tolist()], dtype=torch.float64)
    bound = 2e-7 + 1e-7 * x.double().clamp(max=0).abs()
    assert not torch.equal(compiled, softplus(x))  # it is a formula of its own
    assert (((compiled.double() - expected) / expected).abs() <= bound).all()
    torch.testing.assert_close(found, softplus(special), equal_nan=True)


def test_softplus__compiled_with_autograd_has_the_derivative_at_0() -> None:
    x = torch.zeros(3, requires_grad=True)
    torch.compile(softplus, backend="aot_eager", fullgraph=True)(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.5] * 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1, 15, 64, WORTH_MAPPING + 3])
def test_softplus__infinite_denormal_and_nan_logits(dtype: torch.dtype, size: int) -> None:
    values = {math.inf: math.inf, -math.inf: 0.0, 1e-45: math.log(2), -0.0: math.log(2), 1e38: 1e38, -1e38: 0.0}
    for x, expected in values.items():
        torch.testing.assert_close(
            softplus(torch.full((size,), x, dtype=dtype)), torch.full((size,), expected, dtype=dtype)
        )
    assert softplus(torch.full((size,), math.nan, dtype=dtype)).isnan().all()


@given(st.integers(0, 3 * WORTH_MAPPING), st.integers(0, 40))
def test_softplus__elements_do_not_depend_on_size_or_alignment(size: int, start: int) -> None:
    x = torch.linspace(-30, 30, 3 * WORTH_MAPPING + 41)
    part = x[start : start + size]
    torch.testing.assert_close(softplus(part), softplus(x)[start : start + size], rtol=2e-7, atol=0)


@pytest.mark.parametrize("number", [-60.0, -1.0, 0.0, 19.9, 20.1, 39.9, 40.1])
def test_softplus__derivatives_are_exact(number: float) -> None:
    x = torch.tensor([number], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(softplus(x).sum(), x, create_graph=True)
    torch.testing.assert_close(slope, torch.sigmoid(x), rtol=1e-14, atol=0)
    torch.autograd.gradcheck(softplus, (x,))


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 1.5, 2.0, 4.0])
def test_power__compiled_without_autograd_has_the_told_precision(exponent: float) -> None:
    p = torch.cat([torch.tensor([0.0, 1.0, 2.0**-149]), torch.logspace(-37, 0, 5_001)])
    with torch.no_grad():
        found = torch.compile(power, backend="aot_eager", fullgraph=True)(p, exponent)
    expected = p.double() ** exponent
    normal = expected >= SMALLEST_NORMAL[torch.float32]
    error = ((found.double() - expected) / expected)[normal].abs()
    assert (error <= 2e-7 + 1e-7 * expected[normal].log().abs()).all()
    torch.testing.assert_close(found[~normal], (p**exponent)[~normal], rtol=0, atol=1e-37)
    assert power(torch.tensor([math.nan]), exponent).isnan().item() == (exponent > 0)


def test_log1p__equals_pytorch() -> None:
    x = torch.cat([torch.linspace(-0.999, 5, WORTH_MAPPING), torch.tensor([0.0, -0.0, 1e-30, math.inf])])
    torch.testing.assert_close(log1p(x), torch.log1p(x), rtol=0, atol=0)


def test_map_constants__computes_nothing_in_a_compiled_function() -> None:
    graphs: list[list[str]] = []

    def backend(graph: torch.fx.GraphModule, inputs: object) -> torch.fx.GraphModule:
        graphs.append([str(node.target) for node in graph.graph.nodes if node.op == "call_function"])
        return graph

    torch.compile(softplus, backend=backend, fullgraph=True)(torch.zeros(2 * WORTH_MAPPING))
    assert len(graphs) == 1
    assert len(graphs[0]) == 1


def test_map_constants__traced_graph_has_no_trace_of_it() -> None:
    traced = torch.jit.trace(softplus, torch.zeros(2 * WORTH_MAPPING))
    assert "log1p" not in str(traced.graph)
