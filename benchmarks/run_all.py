"""Run all benchmarks one after another; each prints its table, and the last table lists the ratios of all.

    python benchmarks/run_all.py                    # about half an hour on two cores
    python benchmarks/run_all.py --quick            # small sizes, some minutes
    python benchmarks/run_all.py --quick --check    # fail if a ratio is a third below benchmarks/ratios.json
    python benchmarks/run_all.py --quick --update   # write benchmarks/ratios.json
    python benchmarks/run_all.py --device cuda      # losses and steps, batches of 8 and 16, bfloat16 and float32

Each benchmark runs in turns with its peer: read the ratios. All sizes are arguments of the scripts themselves.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from measuring import ROWS, fallen, machine, ratios, table

COMMITTED = Path(__file__).with_name("ratios.json")
"""Ratios of the quick benchmarks, as they were when the file was last updated."""

FULL = [
    ["ops.py"],
    ["losses.py"],
    ["losses.py", "--anchors", "49104", "--classes", "1203", "--peers", "torchvision focal"],
    ["weighters.py"],
    ["box_losses.py"],
    ["calibrators.py"],
    ["adapters.py"],
    ["step.py", "--classes", "1203", "--size", "320", "--steps", "1"],
    ["step.py", "--classes", "80", "--size", "800", "--steps", "1"],
    ["matching.py"],
    ["postprocess.py"],
    ["evaluation.py", "--slow"],
    ["evaluation.py", "--sync"],
    ["data.py"],
    ["communication.py"],
]
QUICK = [
    ["losses.py", "--anchors", "19206", "--classes", "5", "--rounds", "9"],
    ["losses.py", "--anchors", "20000", "--classes", "80", "--rounds", "7", "--peers", "torchvision focal"],
    ["adapters.py"],
    ["weighters.py", "--anchors", "20000", "--objects", "20", "--rounds", "2"],
    ["step.py", "--classes", "5", "--size", "160", "--steps", "1", "--turns", "1"],
    ["matching.py", "--height", "320", "--width", "320", "--objects", "7", "100"],
    ["postprocess.py", "--height", "320", "--width", "320"],
    ["evaluation.py", "--images", "200", "--turns", "1"],
    ["data.py", "--number", "20", "--annotated", "1000", "--turns", "2"],
    ["communication.py", "--anchors", "5000"],
]
LARGE_PEERS = ["torchvision focal", "focal, not compiled", "copy"]
ON_A_DEVICE = [
    ["losses.py", "--images", images, "--anchors", "120087", "--classes", classes, "--dtype", dtype, *few]
    for classes, few in (("80", []), ("1203", ["--losses", "focal", "ghm", "softmax", "--peers", *LARGE_PEERS]))
    for images in ("8", "16")
    for dtype in ("bfloat16", "float32")
] + [
    ["step.py", "--classes", classes, "--size", "800", "--batch", batch, "--steps", "5", "--precision", dtype, *largest]
    for classes in ("80", "1203")
    for dtype in ("bfloat16", "float32")
    for batch, largest in (("8", ["--largest"]), ("16", []))
]


def main() -> None:
    """Run the benchmarks; the first that fails stops the run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--device", default="cpu")
    after = parser.add_mutually_exclusive_group()
    after.add_argument("--check", action="store_true", help="compare the ratios with the committed ones; with --quick")
    after.add_argument("--update", action="store_true", help="write the ratios to the committed file; with --quick")
    options = parser.parse_args()
    on_device = options.device != "cpu"
    if (options.check or options.update) and (on_device or not options.quick):
        parser.error("--check and --update need --quick, on a CPU: the committed ratios are of these sizes.")
    print(f"{machine(options.device)}, Python {platform.python_version()}", flush=True)
    chosen = QUICK if options.quick else ON_A_DEVICE if on_device else FULL
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows"
        rows.touch()
        for script, *words in chosen:
            words += ["--device", options.device] * on_device
            print(f"\n## {' '.join([script, *words])}\n", flush=True)
            path = Path(__file__).with_name(script)
            subprocess.run([sys.executable, str(path), *words], check=True, env={**os.environ, ROWS: str(rows)})
        print(f"\n## All ratios\n\n{table(rows)}")
        measured = ratios(rows)
    if options.update:
        COMMITTED.write_text(json.dumps(measured, indent=2) + "\n")
    if options.check:
        faults = fallen(measured, json.loads(COMMITTED.read_text()))
        print("\n" + ("\n".join(faults) if faults else "No ratio is a third below the committed one."))
        sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
