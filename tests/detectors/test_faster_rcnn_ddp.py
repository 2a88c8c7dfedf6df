"""Faster R-CNN in two processes: the gradients of one process with the whole batch."""

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from lit_dense.detectors import patch
from tests.builders.detectors import COUNTS, gradients, random_batch, small_faster_rcnn

PISA_OF_ALL = {"class_path": "pisa", "init_args": {"negatives": True, "score_thresh": 0.01}}
EMA = {"class_path": "ema", "init_args": {"initial": 20}}
PARTS = {
    "own": ({}, {}),
    "ghm": ({"loss": "ghm", "box_loss": "ghm_r"}, {"loss": "ghm", "box_loss": "ghm_r"}),
    "eql_v2": ({"loss": "eql_v2"}, {"loss": "eql_v2", "normalizer": EMA}),
    "efl": ({"loss": "efl", "normalizer": EMA}, {"loss": "focal", "box_loss": "giou", "normalizer": "image"}),
    "vfl": ({"loss": "vfl", "box_loss": "giou"}, {"loss": "qfl", "box_loss": "iou"}),
    "softmax": ({"normalizer": "batch", "weighters": ["class_balanced", "ohem"]}, {"weighters": ["target_weights"]}),
    "pisa": ({"loss": "softmax", "weighters": [PISA_OF_ALL]}, {"loss": "bce", "weighters": [PISA_OF_ALL]}),
    "swn": ({"loss": "softmax", "weighters": ["swn"]}, {"loss": "focal", "weighters": ["swn"]}),
}
SPLITS = {"even": ((2, 3), (4, 1)), "one rank empty": ((5, 2), (0, 0)), "unequal": ((3, 0, 6), (1,))}


def _train(share, parts):
    """Three steps of a model in which nothing is drawn by chance; the gradient of the last, and the state."""
    model = small_faster_rcnn(drawn=(10**6, 10**6))
    criteria = {}
    for stage, arguments in zip(("roi", "rpn"), PARTS[parts], strict=True):
        counts = COUNTS if stage == "roi" else None
        criteria[stage] = patch(model, **arguments, stage=stage, class_counts=counts)
        for index, parameter in enumerate(criteria[stage].parameters()):
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(index))
    model.criteria = torch.nn.ModuleDict(criteria)  # parameters of weighters are reduced with the model's
    wrapped = DistributedDataParallel(model) if torch.distributed.is_initialized() else model
    for _ in range(3):
        wrapped.zero_grad()
        torch.stack(list(wrapped(*share).values())).sum().backward()
    return gradients(model), {k: v for k, v in model.criteria.state_dict().items() if isinstance(v, torch.Tensor)}


def _batch(counts):
    images, targets = random_batch(counts, first_label=1)
    return images, [t | {"weight": torch.arange(len(t["boxes"])) + 0.5} for t in targets]


def _share_of(rank, split, parts):
    images, targets = _batch(sum(SPLITS[split], ()))
    start = len(SPLITS[split][0]) if rank else 0
    stop = start + len(SPLITS[split][rank])
    return _train((images[start:stop], targets[start:stop]), parts)


@pytest.mark.ddp
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("parts", PARTS)
def test_gradients_of_two_processes_are_those_of_one(two_processes, parts, split):
    expected, state = _train(_batch(sum(SPLITS[split], ())), parts)
    answers = two_processes(_share_of, split, parts)
    for got, got_state in answers:
        error = (got - expected).norm() / expected.norm()
        assert error < 1e-5, f"relative difference {error:.1e}"
        torch.testing.assert_close(got_state, state, rtol=5e-5, atol=0)  # sums in another order, three steps on
    torch.testing.assert_close(answers[0][1], answers[1][1], rtol=0, atol=0)
