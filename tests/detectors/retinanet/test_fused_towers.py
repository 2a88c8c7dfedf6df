import copy
from unittest import mock

import pytest
import torch
from torch import nn
from torchvision.models.detection.retinanet import RetinaNetClassificationHead, RetinaNetRegressionHead

from lit_dense import patch
from lit_dense.detectors.retinanet.fused_towers import _Multiplied, tower_outputs
from tests.builders.detectors import gradients, random_batch, small_retinanet

LEVELS = ((7, 5), (4, 3), (1, 1))
MANY = 30  # times four anchors: more output channels than a window of eight channels has numbers


def tower(classes=MANY, inputs=8, seed=0):
    torch.manual_seed(seed)
    made = RetinaNetClassificationHead(inputs, 4, classes) if classes else RetinaNetRegressionHead(inputs, 4)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.2)
    return made


def features(images=2, levels=LEVELS, inputs=8):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(images, inputs, *size, generator=generator) for size in levels]


def outputs_and_gradients(run, module, levels):
    """What the tower gives; and all gradients of inputs and of parameters for a random gradient of that."""
    levels = [level.clone(memory_format=torch.preserve_format).requires_grad_() for level in levels]
    module.zero_grad()
    outputs = run(module, levels)
    torch.manual_seed(2)
    outputs.backward(torch.randn_like(outputs, memory_format=torch.contiguous_format))
    return outputs.detach(), torch.cat([level.grad.flatten() for level in levels]), gradients(module)


def stock(module, levels):
    return module(levels)


def assert_near(found, expected, rtol=1e-5):
    """Equal up to a share of the largest number of each tensor."""
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=rtol, atol=rtol * other.abs().max().item())


def assert_same(module, levels, rtol=1e-5, run=tower_outputs):
    found, expected = (outputs_and_gradients(how, module, levels) for how in (run, stock))
    assert found[0].is_contiguous()
    assert_near(found, expected, rtol)


@pytest.mark.parametrize("levels", [LEVELS, ((33, 20),), ((1, 1), (2, 3))])
@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("classes", [0, 1, 3, MANY])
def test_tower_outputs__outputs_and_gradients_are_those_of_the_tower(classes, images, levels):
    assert_same(tower(classes), features(images, levels))


def test_tower_outputs__a_level_of_several_chunks():
    assert_same(tower(), features(2, ((30, 40), (15, 20))))


@pytest.mark.parametrize("classes", [0, 3, MANY])
def test_tower_outputs__layouts_of_images_and_weights(classes):
    levels = [level.to(memory_format=torch.channels_last) for level in features()]
    assert_same(tower(classes).to(memory_format=torch.channels_last), levels)


@pytest.mark.parametrize("classes", [0, 3, MANY])
def test_tower_outputs__half_precision_is_that_of_the_tower(classes):
    with torch.autocast("cpu", torch.bfloat16):
        assert_same(tower(classes), features())
    assert_same(tower(classes).double(), [level.double() for level in features()], 1e-12)


@pytest.mark.parametrize("classes", [3, MANY])
def test_tower_outputs__frozen_parameters_get_no_gradient(classes):
    module = tower(classes)
    module.requires_grad_(False)
    levels = features()
    levels[1].requires_grad_()
    tower_outputs(module, levels).square().sum().backward()
    expected = levels[1].clone().detach().requires_grad_()
    module([levels[0], expected, levels[2]]).square().sum().backward()
    assert_near([levels[1].grad], [expected.grad])
    assert all(p.grad is None for p in module.parameters())


def test_tower_outputs__a_part_of_the_gradient_is_enough():
    module, levels = tower(), features()
    last = module.cls_logits
    (found,) = torch.autograd.grad(tower_outputs(module, levels)[:, ::3].sum(), last.bias)
    (expected,) = torch.autograd.grad(module(levels)[:, ::3].sum(), last.bias)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("classes", [3, MANY])
def test_tower_outputs__activations_may_be_computed_again(classes):
    def checkpointed(module, levels):
        return torch.utils.checkpoint.checkpoint(tower_outputs, module, levels, use_reentrant=False)

    assert_same(tower(classes), features(), run=checkpointed)


def test_tower_outputs__many_classes_are_a_product_of_matrices_and_few_are_not(monkeypatch):
    seen = []
    apply = _Multiplied.apply
    monkeypatch.setattr(_Multiplied, "apply", lambda *args: seen.append(len(args)) or apply(*args))
    for classes in (0, 3, MANY):
        tower_outputs(tower(classes), features())
    assert seen == [2 + len(LEVELS)]


class Louder(RetinaNetClassificationHead):
    """Somebody's tower."""

    def forward(self, x):
        return 2 * super().forward(x)


def test_tower_outputs__a_custom_tower_is_left_alone():
    levels, own = features(), Louder(8, 4, MANY)
    assert torch.equal(tower_outputs(own, levels), own(levels))
    swapped = tower()
    swapped.forward = lambda x: torch.zeros(2, 3, MANY)
    assert torch.equal(tower_outputs(swapped, levels), torch.zeros(2, 3, MANY))


@pytest.mark.parametrize("classes", [3, MANY])
@pytest.mark.parametrize("hooked", ["", "conv", "cls_logits"])
def test_tower_outputs__hooks_are_called(classes, hooked):
    module, levels = tower(classes), features()
    module.get_submodule(hooked).register_forward_hook(lambda module, args, output: output + 1)
    torch.testing.assert_close(tower_outputs(module, levels), module(levels), rtol=1e-5, atol=1e-5)


def test_tower_outputs__a_convolution_of_another_shape_is_called_as_it_is():
    module, levels = tower(), features()
    for conv in (
        nn.Conv2d(8, 4 * MANY, 1),
        nn.Conv2d(8, 4 * MANY, 3, padding=1, bias=False),
        nn.Conv2d(8, 4 * MANY, 3, padding="same", padding_mode="reflect"),
        nn.Conv2d(8, 4 * MANY, 3, padding=2, dilation=2, groups=4),
        nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 4 * MANY, 3, padding=1)),
    ):
        module.cls_logits = conv
        big = [level.repeat(1, 1, 3, 3) for level in levels]
        torch.testing.assert_close(tower_outputs(module, big), module(big), rtol=1e-5, atol=1e-5)


def test_patch__a_compiler_sees_torchvisions_head():
    model = small_retinanet()
    stock = copy.deepcopy(model.head)
    patch(model)
    levels = [torch.rand(2, model.backbone.out_channels, size, size) for size in (8, 4)]
    compiled = torch.compile(lambda x: model.head(x), backend="eager", fullgraph=True)
    with mock.patch("lit_dense.detectors.retinanet.fast_methods.tower_outputs", side_effect=AssertionError):
        found = compiled(levels)
    for name, outputs in stock(levels).items():
        assert torch.equal(found[name], outputs)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("counts", [(2, 0, 5), (1,)])
@pytest.mark.parametrize(("classes", "size"), [(1, 64), (MANY, 64), (150, 96)])
def test_patch__a_training_step_is_torchvisions(classes, size, counts, frozen):
    model = small_retinanet(classes)
    model.transform.min_size, model.transform.max_size = (size,), size
    nn.init.normal_(model.head.classification_head.cls_logits.weight, std=0.05)
    model.backbone.requires_grad_(not frozen)
    patched = copy.deepcopy(model)
    patch(patched)
    images, targets = random_batch(counts, classes, size=size)
    terms = []
    for network in (model, patched):
        terms.append(network(images, targets))
        sum(terms[-1].values()).backward()
    torch.testing.assert_close(terms[1], terms[0], rtol=1e-5, atol=1e-7)
    assert_near([gradients(patched)], [gradients(model)])
