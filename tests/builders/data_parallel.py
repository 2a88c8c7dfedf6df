"""Training in two processes, which must give the gradients and the state of one process with the whole batch."""

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lit_dense.box_losses import BOX_LOSSES
from lit_dense.detectors import patch
from lit_dense.losses import LOSSES
from lit_dense.normalizers import NORMALIZERS
from lit_dense.weighters import WEIGHTERS
from tests.builders.detectors import COUNTS, gradients

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
    if weighter != "dw" or loss == "focal"  # the others do not take its weights
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
"""Loss, box loss, normalizer and weighters of a criterion."""
SPLITS = {"even": ((2, 3), (4, 1)), "one rank empty": ((5, 2), (0, 0)), "unequal": ((3, 0, 6), (1,))}
"""Numbers of objects in the images of each process."""


def weighted(images, targets):
    """A batch whose targets have a weight for each box."""
    return images, [t | {"weight": torch.arange(len(t["boxes"])) + 0.5} for t in targets]


def share_of(rank, split, images, targets):
    """The part of a batch that a process has."""
    start = len(split[0]) if rank else 0
    share = slice(start, start + len(split[rank]))
    return images[share], targets[share]


def train_patched(case, share):
    """Three steps of a model with a builder, loss, box loss, normalizer and weighters."""
    build, loss, box_loss, normalizer, weighters = case
    model = build()
    criterion = patch(model, loss, box_loss, weighters, normalizer, class_counts=COUNTS)
    return train_three_steps(model, share, criterion)


def train_three_steps(model, share, *criteria):
    """Three steps, so that state counts; the gradient of the last, and the state of the criteria."""
    for criterion in criteria:
        for index, parameter in enumerate(criterion.parameters()):
            nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(index))
    model.criteria = nn.ModuleList(criteria)  # parameters of weighters are trained, and reduced, with the model's
    wrapped = DistributedDataParallel(model) if torch.distributed.is_initialized() else model
    for _ in range(3):
        wrapped.zero_grad()
        torch.stack(list(wrapped(*share).values())).sum().backward()
    return gradients(model), {k: v for k, v in model.criteria.state_dict().items() if isinstance(v, torch.Tensor)}


def assert_equal_training(answers, expected, expected_state, norm=2):
    """What ``train_three_steps`` returned in two processes is what it returned in one."""
    for got, state in answers:
        error = torch.linalg.vector_norm(got - expected, norm) / torch.linalg.vector_norm(expected, norm)
        assert error < 1e-5, f"relative difference {error:.1e}"
        torch.testing.assert_close(state, expected_state, rtol=5e-5, atol=0)  # sums in another order, three steps on
    torch.testing.assert_close(answers[0][1], answers[1][1], rtol=0, atol=0)
