import torch

from lit_dense.functional.harmonic import harmonic_weights


def test_harmonic_weights__worked_values():
    costs, box = torch.tensor([0.2, 1.0], requires_grad=True), torch.tensor([0.5, 0.1], requires_grad=True)
    weights, box_weights = harmonic_weights(costs, box)
    torch.testing.assert_close(weights, 1 + torch.exp(-box.detach()))
    torch.testing.assert_close(box_weights, 1 + torch.exp(-costs.detach()))
    value = weights * costs + box_weights * box
    torch.testing.assert_close(value.detach(), torch.tensor([1.230672, 2.041625]), rtol=0, atol=1e-6)
    assert not weights.requires_grad
    huge = harmonic_weights(torch.tensor([1e9, 0.0]), torch.tensor([0.0, 1e9]))
    torch.testing.assert_close(huge, (torch.tensor([2.0, 1.0]), torch.tensor([1.0, 2.0])))
