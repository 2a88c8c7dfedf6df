"""Run the tests and the measurements of a GPU with one command and within 8 minutes; needs no network.

    python benchmarks/gpu.py --out gpu                          # one GPU with PyTorch and Triton
    python benchmarks/gpu.py --out gpu --parts losses steps     # some parts only; they share the 8 minutes
    python benchmarks/gpu.py --out gpu --device cpu --quick     # a dry run with small sizes, 3 minutes

The parts: compiled beside plain numbers of all losses, with seconds of compilation and recompilations; GPU tests; time,
memory and device synchronisations of losses, whole steps, matching and post-processing beside torchvision's;
evaluation beside torchmetrics'; the largest batch. "copy" copies the logits: no loss can read them and write a gradient
in less time. "ms" is a step that starts on an idle device; "kernels, ms" is the part in which the device computes. The
rest is the processor's, which runs ahead of the device in training.

Tests and agreement use several processes on a GPU; the other parts use one, alone.

The parts have time limits. A process that exceeds one is ended, and the next part has a new one. Seconds that a part
does not need are left to the next ones. What a part could not measure in time is listed.

The folder: ``PART.jsonl`` has a row for each measurement, written as soon as it is measured; ``PART.log`` has what the
part printed; ``run.json`` has the machine, the state of each part and the findings; ``report.md`` has all tables.
Existing files of these names are overwritten.
"""

import argparse
import contextlib
import json
import os
import platform
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import torch
from measuring import machine

Row = dict[str, Any]
ROOT = Path(__file__).parents[1]
START = 15
"""Seconds below which a part is not started: importing torch takes as long."""
GRACE = 8
"""Seconds before its limit from which a part begins no further item, so that the last one can finish."""
SLOW_LOSS, SLOW_COMPILE = 3, 60
"""Times the copy of the logits, and seconds of compilation, above which a loss is listed as a finding."""


class Part(NamedTuple):
    """A part of the run.

    Args:
        title: Heading of its table.
        seconds: Share of the time.
        quick: Share of the time of a quick run.
    """

    title: str
    seconds: float
    quick: float


PARTS = {
    "agreement": Part("Compiled beside plain numbers", 75, 65),
    "tests": Part("GPU tests", 90, 50),
    "losses": Part("Losses, forward and backward to the logits", 100, 20),
    "steps": Part("Whole training step, R50 FPN", 70, 15),
    "matching": Part("Matching, one image", 15, 4),
    "postprocess": Part("Post-processing of a batch", 25, 4),
    "evaluation": Part("Evaluation", 20, 6),
    "largest": Part("Largest batch", 75, 10),
}


def limit(part: str, chosen: Sequence[str], total: float, elapsed: float, quick: bool = False) -> float:
    """Return the seconds that a part may take: its share, and what the parts before it have left.

    Args:
        part: The part that is next.
        chosen: All parts of the run, in their order.
        total: Seconds of the whole run.
        elapsed: Seconds since its start.
        quick: Whether the shares are those of a quick run.
    """
    shares = [PARTS[name].quick if quick else PARTS[name].seconds for name in chosen]
    until = sum(shares[: chosen.index(part) + 1]) / sum(shares) * total
    return max(0.0, until - elapsed)


def read_rows(path: Path) -> tuple[list[Row], list[Row]]:
    """Return the planned items and the rows of a part; a last line that was cut off is left out."""
    planned: list[Row] = []
    rows: list[Row] = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if "plan" in row:
            planned = row["plan"]
        else:
            rows.append(row)
    if planned:  # several processes finish in any order
        rows.sort(key=lambda row: planned.index(row["item"]))
    return planned, rows


def named(item: Mapping[str, Any]) -> str:
    """Write an item on one line."""
    return ", ".join(str(value) if isinstance(value, str) else f"{value:,} {key}" for key, value in item.items())


def with_ratios(rows: Sequence[Row]) -> list[Row]:
    """Return the measured rows as columns, with ratios to the rows of the same size that they stand beside."""
    measured = [{**row["item"], **row["result"]} for row in rows if "result" in row]
    for row in measured:
        for key, name, head in (("loss", "copy", "over copy"), ("model", "torchvision", "less time than torchvision")):
            beside = _same_size(measured, row, key, name)
            if beside and "ms" in row:
                row[head] = row["ms"] / beside["ms"] if key == "loss" else beside["ms"] / row["ms"]
            if beside and "kernels, ms" in row:
                row["kernels over copy"] = row["kernels, ms"] / beside["kernels, ms"]
        beside = _same_size(measured, row, "loss", "torchvision focal")
        if beside and "ms" in row:
            row["less time than torchvision focal"] = beside["ms"] / row["ms"]
        if row.get("loss") == "copy":
            size = row["images"] * row["anchors"] * row["classes"] * (4 if row["dtype"] == "float32" else 2)
            row["GB/s"] = 2 * size / row["ms"] / 1e6
        if "torchvision, ms" in row and "lit_dense, ms" in row:
            row["less time"] = row["torchvision, ms"] / row["lit_dense, ms"]
    return measured


def _same_size(rows: Sequence[Row], row: Row, key: str, name: str) -> Row | None:
    """Find the row with this name and otherwise the same size."""
    size = ("images", "anchors", "pixels", "classes", "dtype")
    same = (r for r in rows if r.get(key) == name and key in row and all(r.get(k) == row.get(k) for k in size))
    return next(same, None)


def markdown(rows: Sequence[Row]) -> str:
    """Return a table with a column for each key of any row; columns of lists are left out."""
    heads = list(dict.fromkeys(key for row in rows for key, value in row.items() if not isinstance(value, list)))
    lines = [heads, ["---"] * len(heads), *([_cell(row.get(head, "")) for head in heads] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


def findings(part: str, rows: Sequence[Row]) -> list[str]:
    """Return one line for each result that needs a look: failures, other numbers, slow losses, recompilations."""
    lines = []
    for row in rows:
        name = f"{part}, {named(row['item'])}"
        if "error" in row:
            lines.append(f"{name}: {row['error']}")
        lines += [f"{name}: {warning}" for warning in row.get("warnings", [])]
    for row in with_ratios(rows):
        name = f"{part}, {row.get('loss') or row.get('tests') or row.get('model') or ''} {row.get('dtype', '')}".strip()
        failed = ", ".join(row.get("failed tests", []))
        timed = "kernels" if "kernels over copy" in row else "the call"  # kernels are not timed on a CPU
        ratio = row.get("kernels over copy", row.get("over copy", 0))
        checks = {
            f"failed: {failed}": bool(failed),
            "no test passed": row.get("passed") == 0,
            "its time ran out; the tests after that were not run": row.get("cut off", False),
            "compiled and plain numbers differ": row.get("agrees") is False,
            "nothing was compiled": row.get("agrees") is not None and row.get("graphs") == 0,
            "the results of the two ways differ": row.get("equal") is False,
            f"recompiled {row.get('recompilations')} times": row.get("recompilations", 0) > 0,
            f"compiled for {row.get('compile s', 0):.0f} s": row.get("compile s", 0) > SLOW_COMPILE,
            f"{timed} {ratio:.1f} times the copy of the logits ({row.get('images')} images, "
            f"{row.get('classes')} classes)": ratio > SLOW_LOSS and _is_ours(row),
        }
        lines += [f"{name}: {text}" for text, holds in checks.items() if holds]
    return lines


def _is_ours(row: Row) -> bool:
    return row.get("loss") not in ("copy", "torchvision focal", "focal, not compiled")


def section(part: str, state: str, planned: Sequence[Row], rows: Sequence[Row]) -> str:
    """Return the Markdown of a part: its table, its errors, and what was not measured."""
    lines = [f"## {PARTS[part].title}", "", f"{part}: {state}.", ""]
    measured = with_ratios(rows)
    if measured:
        lines += [markdown(measured), ""]
    lines += [f"- {named(row['item'])}: {row['error']}" for row in rows if "error" in row]
    done = [row["item"] for row in rows if "skipped" not in row]
    missing = [named(item) for item in planned if item not in done]
    if missing:
        lines += ["", f"Not measured ({len(missing)} of {len(planned)}): " + "; ".join(missing) + "."]
    return "\n".join(lines).rstrip() + "\n"


class Worker:
    """A process that measures one part after another, with a new process after one that failed or was too slow."""

    def __init__(self) -> None:
        self._process: Any = None
        self._connection: Connection | None = None

    def run(self, part: str, seconds: float, out: Path, options: argparse.Namespace) -> str:
        """Measure a part; return how it ended.

        Args:
            part: Key of :data:`PARTS`.
            seconds: Its limit.
            out: Folder of its files.
            options: Device and sizes.
        """
        path, log = out / f"{part}.jsonl", out / f"{part}.log"
        for file in (path, log):
            file.unlink(missing_ok=True)
        if seconds < START:
            return f"skipped, because only {seconds:.0f} s are left for it"
        start = time.monotonic()
        if self._connection is None:
            self._start(out)
        assert self._connection is not None
        end = start + seconds - GRACE
        try:
            self._connection.send((part, options.device, options.quick, end, path, log))
            ended = self._connection.poll(seconds) and self._connection.recv() == "done"
            failed = False
        except (EOFError, OSError):
            ended, failed = False, True
        taken = f"{time.monotonic() - start:.0f} of at most {seconds:.0f} s"
        if ended:
            _, rows = read_rows(path)
            errors = [row["error"] for row in rows if "error" in row]
            if any(not error.startswith("OutOfMemoryError") for error in errors):  # CUDA may fail from now on
                self.close()
            return f"out of time, {taken}" if any("skipped" in row for row in rows) else f"finished, {taken}"
        self.close(patience=0)
        if failed:
            last = [line for file in (out / "start.log", log) if file.exists() for line in _last_lines(file)]
            return f"failed, {taken}: {' / '.join(last)}"
        return f"out of time and ended, {taken}"

    def _start(self, out: Path) -> None:
        context = get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, out / "start.log"))
        self._process.start()
        theirs.close()  # so that the end of the process ends the connection

    def close(self, patience: float = 5) -> None:
        """End the process, and with it the workers of the compiler and the tests.

        Args:
            patience: Seconds in which it may end by itself.
        """
        if self._process is None or self._connection is None:
            return
        self._connection.close()
        self._process.join(patience)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()  # it may not have its group yet
        self._process.join()
        self._process = self._connection = None


def _serve(connection: Connection, log: Path) -> None:
    os.setsid()
    try:
        from gpu_parts import serve

        serve(connection)
    except BaseException:
        log.write_text(traceback.format_exc())
        raise


def _last_lines(path: Path, number: int = 3) -> list[str]:
    return [line.strip() for line in path.read_text(errors="replace").strip().splitlines()[-number:]]


def main() -> None:
    """Run the parts and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for all results")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--quick", action="store_true", help="small sizes, for a dry run")
    parser.add_argument("--minutes", type=float, help="of the whole run; 8 by default, 3 with --quick")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="all by default")
    options = parser.parse_args()
    if options.device != "cpu" and not torch.cuda.is_available():
        parser.error(f"--device {options.device}: PyTorch finds no GPU. --device cpu --quick is a dry run.")
    total = 60 * (options.minutes or (3 if options.quick else 8)) - GRACE
    start = time.monotonic()
    options.out.mkdir(parents=True, exist_ok=True)
    chosen = [part for part in PARTS if part in options.parts]
    about = f"{machine(options.device)}, Python {platform.python_version()}"
    states: dict[str, str] = {}
    report, seen = options.out / "report.md", []
    report.write_text("")

    def say(text: str) -> None:
        print(text, flush=True)
        with report.open("a") as file:
            file.write(text + "\n")

    say(f"{about}{', quick' if options.quick else ''}\n")
    sys.path.insert(0, str(ROOT))  # the processes have the same path
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    os.environ["PYTHONUNBUFFERED"] = "1"
    (options.out / "start.log").unlink(missing_ok=True)
    worker = Worker()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as cache, contextlib.closing(worker):
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache  # empty, so that all that is compiled is timed
        for part in chosen:
            seconds = limit(part, chosen, total, time.monotonic() - start, options.quick)
            states[part] = worker.run(part, seconds, options.out, options)
            planned, rows = read_rows(options.out / f"{part}.jsonl")
            say(section(part, states[part], planned, rows))
            seen += findings(part, rows)
            if not states[part].startswith("finished"):
                seen.append(f"{part}: {states[part]}")
            known = {"machine": about, "device": options.device, "quick": options.quick, "parts": states}
            (options.out / "run.json").write_text(json.dumps({**known, "findings": seen}, indent=2) + "\n")
    say("## Findings\n\n" + ("\n".join(f"- {line}" for line in seen) or "None."))
    say(f"\n{time.monotonic() - start:.0f} s in all.")


if __name__ == "__main__":
    main()
