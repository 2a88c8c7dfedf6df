"""Sums of gradients by class: what `efl` and `eql_v2` remember, held to float64 in scenes of a real detector's size."""

import contextlib

import pytest
import torch

from lit_dense.functional.equalization_v2 import equalization_v2_terms, equalization_v2_weights
from lit_dense.functional.equalized_focal import equalized_focal_terms
from lit_dense.functional.focal import focal_terms
from lit_dense.functional.fused import anchor_loss
from lit_dense.functional.fused.anchor_loss import compiled_formulas
from lit_dense.functional.fused.sigmoid_terms import rows_as_on_a_gpu, sum_over_classes_and_gradients


def scene(classes, positives, background, spread, anchors=403_200):
    """Logits and labels: easy background, confident positives, and ignored anchors with high scores.

    By default with as many anchors as two images of 800 x 1344 have.
    """
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(anchors, classes, generator=generator) * spread + background
    labels = torch.full((anchors,), -1)
    labels[:positives] = torch.randint(classes, (positives,), generator=generator)
    labels[positives : positives + 300] = -2
    labels = labels[torch.randperm(anchors, generator=generator)]
    is_positive, ignored = (labels >= 0).nonzero().squeeze(1), (labels == -2).nonzero().squeeze(1)
    logits[is_positive, labels[is_positive]] = 4 + torch.randn(positives, generator=generator)
    logits[ignored] = 3.0
    return logits, labels


def close(found, exact, rtol=2e-6):
    torch.testing.assert_close(found, exact, rtol=rtol, atol=0, check_dtype=False)


def efl(ratio):
    return lambda classes: equalized_focal_terms(torch.full((classes,), ratio))


def eql_v2(ratio):
    return lambda classes: equalization_v2_terms(*equalization_v2_weights(torch.full((classes,), ratio)))


SCENES = {
    "one class at the prior 0.01": (1, 1600, -4.6, 0.3),
    "one class": (1, 1614, -5.0, 1.0),
    "three classes": (3, 1155, -5.0, 0.7),
    "twenty classes at the prior 0.001": (20, 382, -6.9, 0.3, 201_600),
}


@pytest.mark.parametrize("described", SCENES.values(), ids=SCENES.keys())
def test_gradient_sums__are_those_of_float64(described):
    logits, labels = scene(*described)
    wide = logits.double()
    for elements in (efl(1.0), efl(0.3), eql_v2(100.0), eql_v2(0.5)):
        found = sum_over_classes_and_gradients(logits, labels, elements(described[0]))[1]
        exact = sum_over_classes_and_gradients(wide, labels, elements(described[0]))[1]
        close(found, exact)


@pytest.mark.parametrize("elements", [efl(1.0), eql_v2(0.5)], ids=["efl", "eql_v2"])
def test_gradient_sums__are_those_of_the_compiled_path(elements, traced):
    logits, labels = scene(1, 400, -4.6, 0.3, anchors=100_000)
    found = sum_over_classes_and_gradients(logits, labels, elements(1))[1]
    with compiled_formulas():
        compiled = sum_over_classes_and_gradients(logits, labels, elements(1))[1]
    close(found, compiled)


def test_gradient_sums__small_gradients_of_many_chunks_are_kept_beside_a_large_one(monkeypatch):
    logits = torch.full((16_000, 1), -17.0)
    logits[0] = 5.0  # a negative that the detector is sure of
    labels, elements = torch.full((len(logits),), -1), eql_v2(100.0)(1)
    exact = sum_over_classes_and_gradients(logits.double(), labels, elements)[1]
    monkeypatch.setattr(
        anchor_loss, "chunks", lambda logits, start: (slice(i, i + 16) for i in range(start, len(logits), 16))
    )
    close(sum_over_classes_and_gradients(logits, labels, elements)[1].negative, exact.negative, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("columns", [6, 32])
@pytest.mark.parametrize("known", [False, True])
def test_sum_over_classes__compiled_code_computes_the_logits_of_positives_apart(known, columns, dtype, traced):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, columns, generator=generator).to(dtype)
    labels, targets = torch.randint(-2, 6, (50,), generator=generator), torch.rand(50, generator=generator)
    weights = torch.rand(2, columns, generator=generator)
    positives = (labels >= 0).nonzero().squeeze(1) if known else None
    results, seen = [], []

    def positive(x, labels, targets):
        seen.append(len(x))
        return focal_terms().positive(x, labels, targets)

    terms = focal_terms()._replace(positive=positive)
    for compiled in (False, True):
        leaf = logits.clone().requires_grad_()
        with compiled_formulas(compiled), rows_as_on_a_gpu():
            values, sums = sum_over_classes_and_gradients(leaf, labels, terms, targets, weights, positives=positives)
            (values * torch.linspace(0.5, 2, 50)).sum().backward()
        results.append((values.detach(), leaf.grad, sums.positive, sums.negative))
    torch.testing.assert_close(results[0], results[1], rtol=1e-6 if dtype == torch.float32 else 1e-2, atol=1e-7)
    assert seen[-1] == (len(positives) if known else 50)  # once, and only of positives if they are known


@pytest.mark.parametrize("soft", [False, True])
def test_own_logits__all_rows_and_positives_have_the_same_numbers(soft):
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(50, 6, generator=generator), torch.randint(-2, 6, (50,), generator=generator)
    targets = torch.rand(50, generator=generator) if soft else None
    results = []
    for context in (contextlib.nullcontext, rows_as_on_a_gpu):
        leaf = logits.clone().requires_grad_()
        with context():
            values, sums = sum_over_classes_and_gradients(leaf, labels, focal_terms(), targets, torch.arange(1.0, 7.0))
            values.sum().backward()
        results.append((values.detach(), leaf.grad, sums.positive, sums.negative))
    torch.testing.assert_close(results[0], results[1], rtol=1e-6, atol=1e-7)
