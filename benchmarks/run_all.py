"""Run every benchmark, one after another; each prints its table, and at the end one table tells of all.

    python benchmarks/run_all.py                  # about half an hour on two cores
    python benchmarks/run_all.py --quick          # small sizes: minutes, to see that all run
    python benchmarks/run_all.py --device cuda    # losses and steps, batches of 8 and 16, bfloat16 and float32

Each compares with its peer in turns: read the ratios. All sizes are arguments of the scripts themselves.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from measuring import ROWS, machine, table

FULL = [
    ["losses.py"],
    ["losses.py", "--anchors", "49104", "--classes", "1203", "--peers", "torchvision focal"],
    ["weighters.py"],
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
    ["losses.py", "--anchors", "19206", "--classes", "5"],
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
    """Run them; one that fails ends it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    on_device = options.device != "cpu"
    print(f"{machine(options.device)}, Python {platform.python_version()}", flush=True)
    chosen = QUICK if options.quick else ON_A_DEVICE if on_device else FULL
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows"
        rows.touch()
        for script, *words in chosen:
            if on_device and script not in ("losses.py", "step.py"):
                continue
            words += ["--device", options.device] * on_device
            print(f"\n## {' '.join([script, *words])}\n", flush=True)
            path = Path(__file__).with_name(script)
            subprocess.run([sys.executable, str(path), *words], check=True, env={**os.environ, ROWS: str(rows)})
        print(f"\n## All of it\n\n{table(rows)}")


if __name__ == "__main__":
    main()
