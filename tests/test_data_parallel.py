"""Gradients of two processes against one: the promise that every loss, weighter and normalizer keeps."""

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from lit_dense.box_losses import BOX_LOSSES
from lit_dense.criterion import Criterion
from lit_dense.detectors import patch
from lit_dense.losses import LOSSES
from lit_dense.normalizers import NORMALIZERS
from lit_dense.weighters import WEIGHTERS
from tests.builders.detectors import COUNTS, NUM_CLASSES, gradients, random_batch, small_retinanet

PISA_OF_ALL = {"class_path": "pisa", "init_args": {"negatives": True, "score_thresh": 0.01}}
SWN_OF_EACH = {"class_path": "swn", "init_args": {"classification": "anchor", "detach_features": False}}
GHM_WAYS = ({"levels": "separate", "power": 1.0, "update": "reference"}, {"levels": "separate", "power": 0.25})
PARTS = [
    *((loss, "l1", None) for loss in LOSSES.points),
    *((loss, "giou", "batch") for loss in ("eql_v2", "qfl", "softmax", "bce")),
    *(("focal", box_loss, None) for box_loss in BOX_LOSSES.points if box_loss != "l1"),
    *(("focal", "smooth_l1", normalizer) for normalizer in NORMALIZERS.points),
]
PARTS = [(*parts, ()) for parts in PARTS] + [
    (loss, box_loss, None, (weighter,))
    for weighter in WEIGHTERS.points
    for loss in ("focal", "ghm", "qfl")
    for box_loss in ("l1", "giou")
    if (weighter, loss) != ("cleanliness", "ghm")  # which heeds no soft targets
]
OWN_ARGUMENTS = [
    ("focal", "l1", "batch", (PISA_OF_ALL, "swn", "ohem")),
    ("focal", "l1", None, (SWN_OF_EACH,)),
    ({"class_path": "federated", "init_args": {"loss": "ghm", "num_classes": 3}}, "ghm_r", None, ()),
    *(
        ({"class_path": "ghm", "init_args": how}, {"class_path": "ghm_r", "init_args": how}, None, ())
        for how in GHM_WAYS
    ),
]
PARTS += OWN_ARGUMENTS
SPLITS = {"even": ((2, 3), (4, 1)), "one rank empty": ((5, 2), (0, 0)), "unequal": ((3, 0, 6), (1,))}


def _diagonal():
    """Every loss, box loss, normalizer and weighter in every split, several in one case, as few as that takes."""
    losses, box_losses, normalizers = list(LOSSES.points), list(BOX_LOSSES.points), list(NORMALIZERS.points)
    for turn, split in enumerate(SPLITS):
        for number in range(max(len(losses), len(box_losses), len(normalizers))):
            loss, box_loss, normalizer = (
                group[(number + turn * (group is not losses)) % len(group)]
                for group in (losses, box_losses, normalizers)
            )
            bring_their_own = loss == "ghm" or box_loss == "ghm_r"
            yield (loss, box_loss, None if bring_their_own else normalizer, ()), split
            if bring_their_own:
                yield ("focal", "l1", normalizer, ()), split
        for number, weighter in enumerate(WEIGHTERS.points, start=turn):
            loss = ("focal", "qfl", "focal" if weighter == "cleanliness" else "ghm")[number % 3]
            yield (loss, ("l1", "giou")[number % 2], None, (weighter,)), split
        yield from ((parts, split) for parts in OWN_ARGUMENTS[turn :: len(SPLITS)])


def _model(parts):
    return small_retinanet(NUM_CLASSES + Criterion(parts[0]).loss.extra_logits)


def _train(model, share, parts):
    """Three steps, so that state counts; the gradient of the last."""
    criterion = patch(model, *parts[:2], normalizer=parts[2], weighters=parts[3], class_counts=COUNTS)
    for index, parameter in enumerate(criterion.parameters()):
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(index))
    model.criterion = criterion  # parameters of weighters are trained, and reduced, with the model's
    wrapped = DistributedDataParallel(model) if torch.distributed.is_initialized() else model
    for _ in range(3):
        wrapped.zero_grad()
        torch.stack(list(wrapped(*share).values())).sum().backward()
    return gradients(model), {k: v for k, v in criterion.state_dict().items() if isinstance(v, torch.Tensor)}


def _weighted(targets):
    """Targets that bring a weight for each box."""
    return [t | {"weight": torch.arange(len(t["boxes"])) + 0.5} for t in targets]


def _share_of(rank, split, parts):
    images, targets = random_batch(sum(SPLITS[split], ()))
    start = len(SPLITS[split][0]) if rank else 0
    stop = start + len(SPLITS[split][rank])
    return _train(_model(parts), (images[start:stop], _weighted(targets[start:stop])), parts)


def _named(parts):
    return "-".join(str(part) for part in parts)


def _check_gradients(two_processes, parts, split):
    images, targets = random_batch(sum(SPLITS[split], ()))
    expected, state = _train(_model(parts), (images, _weighted(targets)), parts)
    answers = two_processes(_share_of, split, parts)
    for got, got_state in answers:
        error = (got - expected).norm() / expected.norm()
        assert error < 1e-5, f"relative difference {error:.1e}"
        torch.testing.assert_close(got_state, state, rtol=5e-5, atol=0)  # sums in another order, three steps on
    torch.testing.assert_close(answers[0][1], answers[1][1], rtol=0, atol=0)


@pytest.mark.ddp
@pytest.mark.parametrize(
    ("parts", "split"), _diagonal(), ids=lambda value: value if isinstance(value, str) else _named(value)
)
def test_gradients_of_two_processes_are_those_of_one(two_processes, parts, split):
    _check_gradients(two_processes, parts, split)


@pytest.mark.slow
@pytest.mark.ddp
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("parts", PARTS, ids=_named)
def test_gradients_of_two_processes_are_those_of_one_in_every_combination(two_processes, parts, split):
    _check_gradients(two_processes, parts, split)


@pytest.mark.parametrize("split", SPLITS)
def test_diagonal__has_every_part_in_every_split(split):
    chosen = [parts for parts, its_split in _diagonal() if its_split == split]
    for place, registry in enumerate((LOSSES, BOX_LOSSES, NORMALIZERS)):
        assert set(registry.points) <= {parts[place] for parts in chosen if isinstance(parts[place], str)}
    assert set(WEIGHTERS.points) <= {name for parts in chosen for name in parts[3] if isinstance(name, str)}
