"""What the processes of a data-parallel run tell each other for each loss and weighter: collectives and bytes a step.

    python benchmarks/communication.py --classes 80

Two gloo processes compute a criterion's loss and gradient of the same made-up batch. Counted is what one process hands
to torch.distributed, in the forward and the backward pass; DDP's average of the gradients comes on top, with four bytes
for each parameter.
"""

import argparse
import socket

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from weighters import Batch

from lit_dense.box_losses import BOX_LOSSES
from lit_dense.core.class_counts import ClassCounts
from lit_dense.core.distributed import Reduce
from lit_dense.criterion import Criterion
from lit_dense.losses import LOSSES
from lit_dense.normalizers import NORMALIZERS
from lit_dense.weighters import WEIGHTERS

ARGUMENTS = {"federated": {"num_classes": 20}, "cleanliness": {"candidates": 0}}


class Counter:
    """Counts the collectives of this process and the bytes that it hands to them."""

    def __init__(self) -> None:
        self.calls = self.bytes = 0

    def watch(self, name: str, place: int) -> None:
        """Count a function of torch.distributed whose argument at a place is what it sends."""
        function = getattr(dist, name)

        def counted(*args: object, **kwargs: object) -> object:
            self.calls += 1
            self.bytes += args[place].numel() * args[place].element_size()
            return function(*args, **kwargs)

        setattr(dist, name, counted)


def measure(rank: int, options: argparse.Namespace, port: int) -> None:
    """One process."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    counter = Counter()
    counter.watch("all_reduce", 0)
    counter.watch("all_gather", 1)
    images = torch.arange(options.classes) + 1
    counts = ClassCounts(images, images, options.classes * 100)
    batch = Batch(options.images, options.anchors, options.classes, options.objects)
    groups = {"loss": LOSSES, "box_loss": BOX_LOSSES, "normalizer": NORMALIZERS, "weighters": WEIGHTERS}
    if rank == 0:
        print(f"{options.images} images a process, {options.objects} objects each, {options.classes} classes\n")
        print("| what | collectives | bytes |\n|---|---|---|")
    base: tuple[int, int] | None = None
    for argument, registry in groups.items():
        for name in ["focal"] * (argument == "loss") + [n for n in sorted(registry.points) if n != "focal"]:
            part = {"class_path": name, "init_args": ARGUMENTS.get(name, {})}
            criterion = Criterion(**{argument: [part] if argument == "weighters" else part}, class_counts=counts)
            found = []
            for _ in range(2):  # some parts have more to tell in the first step
                samples = batch.samples(Reduce(), criterion.loss.extra_logits, criterion.box_loss)
                counter.calls = counter.bytes = 0
                torch.stack(list(criterion(samples).values())).sum().backward()
                found.append((counter.calls, counter.bytes))
            base = base or found[1]
            if rank == 0 and (found[1] != base or base is found[1]):
                print(f"| {argument} `{name}` | {found[1][0]} | {found[1][1]:,} |")
    if rank == 0:
        print(f"\nAll others: {base[0]} collectives, {base[1]:,} bytes, as `focal`.")


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--anchors", type=int, default=20000, help="of each image")
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--objects", type=int, default=20, help="of each image, with 10 positives each")
    options = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(measure, (options, port), nprocs=2)


if __name__ == "__main__":
    main()
