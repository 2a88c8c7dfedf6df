"""Time of every box loss for the positives of a batch, forward and backward to the deltas, beside L1.

    python benchmarks/box_losses.py --objects 300

Every object has ten positives. The losses run in turns in one process and one thread: read the ratios. IoU losses also
decode the boxes. ``dfl`` has 17 outputs for each side.
"""

import argparse
import statistics
import time

from measuring import as_in_training, machine, report, spread
from weighters import Batch

from lit_dense.box_losses import BOX_LOSSES, BoxLoss

PEER = "l1"


def seconds(batch: Batch, loss: BoxLoss) -> float:
    """Return the CPU seconds of a box loss and its gradient."""
    samples = batch.samples(box_loss=loss)
    assert len(samples.pos_labels)  # matched before the measurement, which all losses need
    start = time.process_time()
    if loss.space == "deltas":
        values = loss(samples.pos_deltas, samples.pos_target_deltas, samples)
    else:
        values = loss(samples.pos_boxes, samples.pos_gt_boxes, samples)
    values.sum().backward()
    return time.process_time() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--anchors", type=int, default=20000, help="of each image")
    parser.add_argument("--objects", type=int, default=300, help="of each image")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    as_in_training()
    batch = Batch(options.images, options.anchors, 1, options.objects)
    losses = {name: BOX_LOSSES.build(name) for name in [PEER, *sorted({*BOX_LOSSES.points} - {PEER})]}
    times: dict[str, list[float]] = {name: [] for name in losses}
    for turn in range(options.rounds + 1):
        for name, loss in losses.items():
            taken = seconds(batch, loss)
            if turn:  # the first round warms up
                times[name].append(taken)
    print(f"{machine()}\n{options.images} images with {options.objects} objects, ten positives of each object\n")
    print("| box loss | ms | over l1 |\n|---|---|---|")
    for name, taken in times.items():
        ratios = [one / peer for one, peer in zip(taken, times[PEER], strict=True)]
        print(f"| {name} | {1000 * statistics.median(taken):.1f} | {spread(ratios)} |")
        report(f"box loss {name}", "box loss l1", taken, times[PEER])


if __name__ == "__main__":
    main()
