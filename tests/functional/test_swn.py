import torch

from lit_dense.functional.swn import interpolate, loss_grid
from lit_dense.weighters import SWNWeighter


def test_interpolate__values_and_gradient():
    grid, at_grid = torch.tensor([0.0, 1.0, 3.0]), torch.tensor([2.0, 4.0, 0.0], requires_grad=True)
    found = interpolate(torch.tensor([0.0, 0.25, 2.0, 3.0, 99.0]), grid, at_grid)
    torch.testing.assert_close(found, torch.tensor([2.0, 2.5, 2.0, 0.0, 0.0]))
    (gradient,) = torch.autograd.grad(found.sum(), at_grid)
    assert gradient.tolist() == [1.75, 0.75, 2.5]


def test_interpolate__the_network_between_points_of_the_grid_is_near_its_interpolation():
    torch.manual_seed(0)
    weighter = SWNWeighter(limit=100)
    for parameter in weighter.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    costs = torch.cat([torch.rand(500) * 1e-4, torch.rand(500), torch.rand(500) * 100])

    def at(losses):
        nothing = torch.zeros(len(losses), 1)
        return weighter._uncertainty(nothing, nothing, losses[:, None], nothing.expand(-1, 4))[:, 0]

    grid = loss_grid(torch.device("cpu"))
    exact = at(costs)
    assert exact.std() > 0.1
    torch.testing.assert_close(interpolate(costs, grid, at(grid)), exact, rtol=1e-3, atol=1e-4)
