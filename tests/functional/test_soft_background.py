import pytest
import torch

from lit_dense.functional.soft_background import soft_background_weights


def test_soft_background_weights__worked_values():
    overlaps = torch.tensor([0, 0.05, 0.1, 0.2, 0.5], dtype=torch.float64)
    expected = [0.25, 0.25, 0.250864, 0.550153, 0.998299]
    assert soft_background_weights(overlaps).tolist() == pytest.approx(expected, abs=1e-6)
    assert soft_background_weights(overlaps, floor=1.0).tolist() == [1] * 5
