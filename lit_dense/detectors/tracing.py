"""What PyTorch records: graphs of traced and compiled models."""

import torch


def records_graph() -> bool:
    """Whether a graph is traced or compiled, into which what is decided by looking at numbers would be frozen."""
    return bool(torch.jit.is_tracing()) or torch.compiler.is_compiling()  # type: ignore[attr-defined, no-untyped-call]
