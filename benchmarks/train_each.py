"""Train losses and weighters at an equal number of steps, and print one table.

    python benchmarks/train_each.py --out runs/losses --seeds 0 1 --steps 360
    python benchmarks/train_each.py --runs focal focal+pisa ghm+pisa --out runs/weighters
    python benchmarks/train_each.py --config configs/bccd.yaml --steps 100 --model.min_size=160 --model.max_size=220

Each run is `lit-dense fit` in a process of its own, with the same configuration and nothing changed but the loss, the
weighters, the seed and the number of steps. A run that is in the output folder already is not made again, so the
command can be stopped and given again. AP is of the validation set, at a score threshold of .001; groups of classes are
thirds of the classes by their number of boxes in the training set.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from statistics import mean

from lit_dense.losses import LOSSES

DEMO = Path(__file__).parents[1] / "configs" / "demo.yaml"
ARGUMENTS = {
    "federated": ["--model.loss.num_classes=5"],  # of the demo's ten; its default is more than there are
    "cleanliness": ["--model.assigner=null"],  # it brings its own
}


def train(run: str, seed: int, options: argparse.Namespace, extra: list[str]) -> dict[str, float]:
    """The metrics of one run: those of its last validation, and AP50 of the one halfway as ``halfway``."""
    folder, steps = options.out / f"{run}-{seed}", options.steps
    result = folder / "result.json"
    if result.exists():
        return dict(json.loads(result.read_text()))
    loss, *weighters = run.split("+")
    command = [
        *(sys.executable, "-m", "lit_dense", "fit", f"--config={options.config}", f"--seed_everything={seed}"),
        *(f"--model.loss={loss}", f"--model.weighters=[{','.join(weighters)}]"),
        *(argument for part in (loss, *weighters) for argument in ARGUMENTS.get(part, [])),
        *(f"--trainer.max_steps={steps}", "--trainer.max_epochs=-1"),
        *(f"--trainer.val_check_interval={steps // 2}", "--trainer.check_val_every_n_epoch=null"),
        *("--trainer.logger=lightning.pytorch.loggers.CSVLogger", f"--trainer.logger.save_dir={folder}"),
        *("--trainer.logger.name=log", "--trainer.enable_checkpointing=false", "--trainer.callbacks=null"),
        *("--trainer.enable_progress_bar=false", f"--trainer.default_root_dir={folder}", *extra),
    ]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{run}, seed {seed}:\n{done.stderr[-3000:]}")
    with (folder / "log" / "version_0" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("val_map")]
    found = {name: float(value) for name, value in rows[-1].items() if name.startswith("val_") and value}
    found |= {"halfway": float(rows[0]["val_map_50"]), "seconds": time.perf_counter() - started}
    result.write_text(json.dumps(found))
    return found


def groups(annotations: Path) -> dict[str, list[str]]:
    """Names of the frequent, common and rare classes: thirds by number of boxes."""
    data = json.loads(annotations.read_text())
    names = {c["id"]: c["name"] for c in data["categories"]}
    order = [names[i] for i, _ in Counter(a["category_id"] for a in data["annotations"]).most_common()]
    third = len(order) // 3
    return {"frequent": order[:third], "common": order[third:-third], "rare": order[-third:]}


def main() -> None:
    """Train what is not trained yet and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", nargs="+", default=sorted(LOSSES.points), help="losses, or loss+weighter+weighter")
    parser.add_argument("--config", type=Path, default=DEMO)
    parser.add_argument("--annotations", type=Path, default=Path("datasets/digits/train.json"), help="for the groups")
    parser.add_argument("--out", type=Path, default=Path("runs/losses"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=360)
    options, extra = parser.parse_known_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for seed in options.seeds:
        for run in options.runs:
            found = train(run, seed, options, extra)
            print(f"{run:24} seed {seed}: AP50 {found['val_map_50']:.3f} in {found['seconds']:.0f} s", flush=True)
    print_table(options)


def print_table(options: argparse.Namespace) -> None:
    """Mean over seeds, and smallest and largest, for each run."""
    classes = groups(options.annotations)
    print("\n" + "; ".join(f"{group}: {', '.join(names)}" for group, names in classes.items()) + "\n")
    print("| run | AP | AP50 (from, to) | AP50 halfway | frequent | common | rare |")
    print("|---|---|---|---|---|---|---|")
    for run in options.runs:
        found = [json.loads((options.out / f"{run}-{seed}" / "result.json").read_text()) for seed in options.seeds]
        ap50 = [one["val_map_50"] for one in found]
        of_groups = [mean(one[f"val_map/{name}"] for one in found for name in names) for names in classes.values()]
        numbers = [mean(one[name] for one in found) for name in ("val_map", "halfway")] + of_groups
        ap, *others = [f"{number:.3f}" for number in numbers]
        spread = f"{mean(ap50):.3f} ({min(ap50):.3f}, {max(ap50):.3f})"
        print("| " + " | ".join([f"`{run}`", ap, spread, *others]) + " |")


if __name__ == "__main__":
    main()
