"""What evaluation costs: DetectionMAP beside the evaluator it calls and beside torchmetrics' metric.

    python benchmarks/evaluation.py --images 5000 --classes 80 --turns 3
    python benchmarks/evaluation.py --images 1000 --classes 300 --slow          # pycocotools too
    python benchmarks/evaluation.py --images 5000 --sync                        # two processes join their images

Each measurement is a process of its own, on the same made-up images, and the cases come in turns. All get a dict of
tensors for each image, as a detector gives them: the metrics in batches of 8; "directly" joins them at once, hands flat
arrays to the evaluator and reads precision, recall and the confusion matrix. Memory is the peak above what the process
held with its input.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import numpy as np
import torch
import torch.multiprocessing as mp
from measuring import machine, report, spread

from lit_dense.metrics import DetectionMAP

BATCH = 8
SLOW = ["torchmetrics, pycocotools"]
CASES = ["directly", "DetectionMAP", "torchmetrics, faster-coco-eval", "torchmetrics, faster-coco-eval, per class"]


def make_images(options: argparse.Namespace) -> tuple[list[dict], list[dict]]:
    """Detections near the objects of their image, most with the right class."""
    rng = np.random.default_rng(0)
    preds, targets = [], []
    for _ in range(options.images):
        corner, size = rng.uniform(0, 400, (7, 2)), rng.uniform(8, 200, (7, 2))
        labels = rng.integers(0, options.classes, 7)
        source = np.arange(options.detections) % 7
        boxes = np.hstack([corner, corner + size])[source] + rng.normal(0, 4, (options.detections, 4))
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        right = rng.random(options.detections) < 0.7
        found = np.where(right, labels[source], rng.integers(0, options.classes, options.detections))
        preds.append(
            {
                "boxes": torch.tensor(boxes, dtype=torch.float32),
                "scores": torch.tensor(rng.random(options.detections), dtype=torch.float32),
                "labels": torch.tensor(found),
            }
        )
        truth = np.hstack([corner, corner + size])
        targets.append({"boxes": torch.tensor(truth, dtype=torch.float32), "labels": torch.tensor(labels)})
    return preds, targets


def directly(preds: list[dict], targets: list[dict], options: argparse.Namespace) -> float:
    """The evaluator on flat arrays, which are made from the tensors of all images at once."""
    from hotcoco import COCO, COCOeval

    def flat(items: list[dict]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        boxes = torch.cat([i["boxes"] for i in items]).double().numpy()
        boxes[:, 2:] -= boxes[:, :2]
        return (
            np.repeat(np.arange(len(items)), [len(i["boxes"]) for i in items]),
            boxes,
            np.concatenate([i["labels"].numpy() for i in items]),
        )

    started = time.perf_counter()
    truth, found = flat(targets), flat(preds)
    scores = torch.cat([p["scores"] for p in preds]).double().numpy()
    images = [{"id": i} for i in range(options.images)]
    categories = [{"id": k, "name": str(k)} for k in range(options.classes)]
    gt = COCO.from_arrays(images, categories, truth[0], truth[2], truth[1], area=truth[1][:, 2:].prod(1))
    evaluation = COCOeval(gt, gt.load_res(np.column_stack([found[0], found[1], scores, found[2]])), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.eval["precision"], evaluation.confusion_matrix(0.5, None, 0.3)
    return time.perf_counter() - started


def with_metric(metric: torch.nn.Module, preds: list[dict], targets: list[dict], ids: bool) -> tuple[float, float]:
    """Seconds of a metric for all batches and its result, and of these for the batches."""
    started = time.perf_counter()
    for start in range(0, len(preds), BATCH):
        part = slice(start, start + BATCH)
        extra = [range(len(preds))[part]] if ids else []
        metric.update(preds[part], targets[part], *extra)
    updated = time.perf_counter()
    metric.compute()
    return time.perf_counter() - started, updated - started


def measure(case: str, options: argparse.Namespace) -> dict[str, float]:
    """Seconds and memory of one case, in this process."""
    torch.set_num_threads(1)
    preds, targets = make_images(options)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    updates = 0.0
    if case == "directly":
        seconds = directly(preds, targets, options)
    elif case == "DetectionMAP":
        seconds, updates = with_metric(DetectionMAP([str(k) for k in range(options.classes)]), preds, targets, True)
    else:
        from torchmetrics.detection import MeanAveragePrecision

        backend = "pycocotools" if "pycocotools" in case else "faster_coco_eval"
        metric = MeanAveragePrecision(backend=backend, class_metrics="per class" in case)
        metric.warn_on_many_detections = False
        seconds, updates = with_metric(metric, preds, targets, False)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "updates": updates, "MiB": (after - before) / 1024}


def sync(rank: int, options: argparse.Namespace) -> None:
    """Time for two processes to join the states of half of the images each."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method="tcp://127.0.0.1:29611", rank=rank, world_size=2)
    preds, targets = make_images(options)
    metric = DetectionMAP([str(k) for k in range(options.classes)])
    for start in range(rank * BATCH, len(preds), 2 * BATCH):
        part = slice(start, start + BATCH)
        metric.update(preds[part], targets[part], range(len(preds))[part])
    states = sum(t.numel() * t.element_size() for n in ("images", "boxes", "labels") for t in getattr(metric, n))
    raw = sum(t.numel() * t.element_size() for items in (preds, targets) for i in items for t in i.values()) / 2
    seconds = []
    for _ in range(options.turns):
        torch.distributed.barrier()
        started = time.perf_counter()
        metric.sync()
        seconds.append(time.perf_counter() - started)
        metric.unsync()
    if rank == 0:
        times = ", ".join(f"{s:.3f}" for s in seconds)
        print(f"two processes join {options.images} images in {times} s; states {states / raw:.2f} x what was given")


def main() -> None:
    """Measure in turns and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--detections", type=int, default=100)
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--slow", action="store_true", help="measure pycocotools too, once")
    parser.add_argument("--sync", action="store_true", help="measure how two processes join their images")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(options.case, options)))
        return
    if options.sync:
        mp.spawn(sync, (options,), nprocs=2)
        return
    found: dict[str, list[dict[str, float]]] = {}
    for turn in range(options.turns):
        for case in CASES + (SLOW if options.slow and not turn else []):
            done = subprocess.run(
                [sys.executable, *sys.argv, "--case", case], capture_output=True, text=True, check=True
            )
            found.setdefault(case, []).append(json.loads(done.stdout.splitlines()[-1]))
    print(machine())
    print(f"{options.images:,} images x {options.detections} detections x {options.classes} classes\n")
    print("| | seconds | of these for the batches | over the evaluator | peak MiB |\n|---|---|---|---|---|")
    base = [one["seconds"] for one in found["directly"]]
    for case, runs in found.items():
        ratios = [one["seconds"] / low for one, low in zip(runs, base, strict=False)]
        seconds, updates, memory = (statistics.median(one[k] for one in runs) for k in ("seconds", "updates", "MiB"))
        print(f"| {case} | {seconds:.2f} | {updates:.2f} | {spread(ratios)} | {memory:.0f} |")
    own = found["DetectionMAP"]
    for peer in (case for case in found if case != "DetectionMAP"):
        item = f"DetectionMAP, {options.images:,} x {options.detections} detections"
        seconds_of = [[run["seconds"] for run in runs] for runs in (own, found[peer])]
        report(item, peer, *seconds_of, [statistics.median(run["MiB"] for run in runs) for runs in (own, found[peer])])


if __name__ == "__main__":
    main()
