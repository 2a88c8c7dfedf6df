"""A test whether PyTorch is tracing or compiling the model."""

import torch


def records_graph() -> bool:
    """Whether PyTorch traces or compiles a graph, which would keep the result of every decision that reads values."""
    return torch.compiler.is_compiling() or bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]
