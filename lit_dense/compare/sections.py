"""The sentences and tables of a report."""

from collections.abc import Sequence

import numpy as np

from ..metrics.evaluation import Evaluation
from ..visualization.page import Table
from .curves import LARGEST_GAIN, Flattening, flattening, mean_curve
from .divisors import note_on_divisors
from .results import Comparison, Result
from .statistics import RESAMPLES, Difference, Spread, Verdict, mean_of, thirds

MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"
FREQUENCIES = ("rare", "common", "frequent")


def others(comparison: Comparison) -> list[str]:
    """Return the configurations that can be compared with the baseline."""
    if not comparison.finished(comparison.baseline):
        return []
    return [name for name in comparison.shown if name != comparison.baseline and comparison.difference(name)]


def summary(comparison: Comparison) -> str:
    """Summarise in one or two sentences which differences are real and which are within the noise."""
    if not comparison.shown:
        return "No run is finished yet."
    base = comparison.spread(comparison.baseline, "map")
    compared = {name: comparison.difference(name) for name in others(comparison)}
    missing = not comparison.finished(comparison.baseline)
    if base is None and not missing:
        return (
            f"There is nothing to compare: {comparison.baseline} has no AP, because its validation set has no objects."
        )
    if base is None or not compared:
        return f"There is nothing to compare yet: {'the baseline' if missing else 'no other run'} is " + (
            "not finished." if missing else "finished with the seeds of the baseline."
        )
    kinds: dict[str, list[str]] = {}
    for name, difference in compared.items():
        if difference:
            kinds.setdefault(difference.verdict, []).append(_by_how_much(name, difference))
    clauses = [
        f"{_listed(kinds[verdict])} {_by_number(kinds[verdict], *forms)}"
        for verdict, forms in _CLAUSES
        if verdict in kinds
    ]
    sentence = f"Compared with {comparison.baseline} (AP {base.mean:.3f}): {'; '.join(clauses)}."
    single = [name for name, difference in compared.items() if difference and len(difference.per_seed) == 1]
    if single:
        of = "" if len(single) == len(compared) else f" (of {_listed(single)})"
        sentence += f" One seed{of} is not enough: the spread over seeds is unknown. Use at least three."
    for name in compared:
        if reason := comparison.unlike.get(name):
            sentence += f" {name} {reason}: its difference is one of measures, not of models."
    names = [name for name in comparison.shown if name == comparison.baseline or name in compared]
    rising = [name for name in names if curve_of(comparison, name).shape == "still rising"]
    if not rising:
        return sentence
    return (
        f"{sentence} AP still rises at the end of {_listed(rising)}, by more than {_percent(LARGEST_GAIN)} over the "
        "last third of the steps: these numbers order the speed of learning, not the final quality."
    )


def curve_of(comparison: Comparison, name: str) -> Flattening:
    """Judge whether the learning curve of a configuration has become flat; its seeds are averaged."""
    return flattening(mean_curve([result.found["curve"] for result in comparison.finished(name).values()]))


_CLAUSES: tuple[tuple[Verdict, tuple[str, str]], ...] = (
    ("better", ("is better", "are better")),
    ("worse", ("is worse", "are worse")),
    ("one seed", ("differs by more than the images explain", "differ by more than the images explain")),
    ("within the noise", ("is within the noise", "are within the noise")),
    ("not known", ("has no interval", "have no interval")),
)


def _by_number(names: Sequence[str], one: str, several: str) -> str:
    return one if len(names) == 1 else several


def _by_how_much(name: str, difference: Difference) -> str:
    return f"{name} ({signed(difference.mean)})"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def signed(number: float) -> str:
    """Format a difference with its sign, with a typographic minus."""
    shown = f"{number:+.3f}".replace("-", MINUS)
    return shown if float(shown[1:]) else shown[1:]


def with_range(spread: Spread | None) -> str:
    """Format a mean, with smallest and largest if there are several values."""
    if spread is None:
        return DASH
    if len(spread.values) == 1:
        return f"{spread.mean:.3f}"
    return f"{spread.mean:.3f} ({spread.low:.3f}{DASH}{spread.high:.3f})"


def title(comparison: Comparison) -> str:
    """Return the title: the names, or their number if there are more than four."""
    names = comparison.names
    return f"Comparison of {_listed(names) if len(names) <= 4 else f'{len(names)} configurations'}"


def main_table(comparison: Comparison) -> Table:
    """Return the table of the AP of every run and its difference to the baseline."""
    rows = []
    for name in comparison.shown:
        seeds = comparison.finished(name)
        ap, ap_50, ap_75 = (with_range(comparison.spread(name, number)) for number in ("map", "map_50", "map_75"))
        cells = [*_difference_cells(comparison, name), ap_50, ap_75, _seeds(seeds), _curve_cell(comparison, name)]
        rows.append([name, ap, *cells])
    images = len(next(iter(comparison.finished(comparison.shown[0]).values())).image_ids())
    notes = [
        "AP: COCO's AP on the validation set, with the weights at the end of training; no best checkpoint is chosen.",
        "In brackets: the smallest and the largest seed. Difference: to the baseline, over the seeds that both have.",
        f"Interval: 95 % bootstrap over the {images} validation images ({RESAMPLES} resamples, the same for both runs, "
        "seeds averaged).",
        "Within the noise: the interval contains 0, the difference is 0.000, or the spread over seeds explains it "
        "(Student's t, 95 %).",
        "One seed: the difference is more than the images explain, but the spread over seeds is unknown.",
        f"Curve: still rising if AP gained more than {_percent(LARGEST_GAIN)} of its final value over the last third "
        f"of the steps; {DASH} with fewer than three validations.",
    ]
    models = {n: next(iter(comparison.finished(n).values())).run.config["model"] for n in comparison.shown}
    if note := note_on_divisors(models):
        notes.append(note)
    if len({r.found["steps"] for n in comparison.shown for r in comparison.finished(n).values()}) > 1:
        notes.append("The runs differ in their number of steps, see Time and memory: --steps gives all the same.")
    headers = ["run", "AP", "difference", "95 % interval", "verdict", "AP50", "AP75", "seeds", "curve"]
    return Table(headers, rows, notes, [comparison.shown.index(name) for name in _real(comparison)])


def _real(comparison: Comparison) -> list[str]:
    compared = {name: comparison.difference(name) for name in others(comparison)}
    return [name for name, difference in compared.items() if difference and difference.verdict in ("better", "worse")]


def _difference_cells(comparison: Comparison, name: str) -> list[str]:
    if name == comparison.baseline:
        return ["", "", "baseline"]
    difference = comparison.difference(name) if name in others(comparison) else None
    if difference is None:
        known = comparison.spread(name, "map") and comparison.spread(comparison.baseline, "map")
        return [DASH, DASH, "no seed in common with the baseline" if known else "no AP"]
    verdict = str(difference.verdict)
    if np.isnan(difference.low):
        return [signed(difference.mean), DASH, verdict]
    return [signed(difference.mean), f"{signed(difference.low)} to {signed(difference.high)}", verdict]


def _curve_cell(comparison: Comparison, name: str) -> str:
    shape, gain = curve_of(comparison, name)
    return {"flat": "flat", "still rising": f"still rising (+{_percent(gain)})"}.get(shape, DASH)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _seeds(results: dict[int, Result]) -> str:
    return ", ".join(map(str, results))


def groups_table(comparison: Comparison) -> Table | None:
    """Return the table of AP of rare, common and frequent classes: LVIS's groups if two have classes, else thirds."""
    lvis = [group for group in FREQUENCIES if any(comparison.spread(n, f"map_{group}") for n in comparison.shown)]
    if len(lvis) > 1:
        bounds = comparison.shared["model"].get("frequency_bounds") or (10, 100)
        rows = [[n, *(with_range(comparison.spread(n, f"map_{g}")) for g in lvis)] for n in comparison.shown]
        notes = [f"Rare: in at most {bounds[0]} training images; common: in at most {bounds[1]}; frequent: in more."]
        return Table(["run", *lvis], rows, notes)
    counts = _training_boxes(comparison)
    groups = thirds(counts)
    if not groups:
        return None
    names = class_names(comparison)
    rows = []
    for name in comparison.shown:
        tables = [result.tables for result in comparison.finished(name).values()]
        means = {g: [mean_of(t.ap, _labels(t, [names[i] for i in some])) for t in tables] for g, some in groups.items()}
        rows.append([name, *(_range_of(values) for values in means.values())])
    listed = "; ".join(f"{group}: {', '.join(names[label] for label in labels)}" for group, labels in groups.items())
    note = "AP of thirds of the classes, by their number of training boxes"
    return Table(["run", *groups], rows, [f"{note}: {listed}." if len(names) <= 30 else f"{note}."])


def _labels(tables: Evaluation, names: Sequence[str]) -> list[int]:
    """Return the labels of classes in a run, whose data may have the classes in another order."""
    return [tables.class_names.index(name) for name in names if name in tables.class_names]


def _range_of(values: Sequence[float]) -> str:
    known = tuple(value for value in values if not np.isnan(value))
    return with_range(Spread(known) if known else None)


def class_names(comparison: Comparison) -> tuple[str, ...]:
    """Return the names of the classes."""
    return next(iter(comparison.finished(comparison.shown[0]).values())).tables.class_names


def _training_boxes(comparison: Comparison) -> list[int]:
    content = next(iter(comparison.finished(comparison.shown[0]).values())).found
    return list(content.get("training_boxes") or [])


def classes_table(comparison: Comparison, number: str) -> Table:
    """Return the table of a metric of every class and run, averaged over seeds; the most frequent class is first.

    Args:
        comparison: The comparison.
        number: ``map`` or ``map_50``.
    """
    names, counts = class_names(comparison), _training_boxes(comparison)
    known = len(counts) == len(names)
    order = sorted(range(len(names)), key=lambda label: -counts[label]) if known else range(len(names))
    rows = []
    for label in order:
        spreads = [comparison.spread(run, f"{number}/{names[label]}") for run in comparison.shown]
        means = [DASH if spread is None else f"{spread.mean:.3f}" for spread in spreads]
        rows.append([names[label], f"{counts[label]:,}" if known else DASH, *means])
    return Table(["class", "training boxes", *comparison.shown], rows, ["Mean over the seeds."])


def costs_table(comparison: Comparison) -> Table:
    """Return the table of time and memory of each run, averaged over the seeds."""
    rows = []
    for name in comparison.shown:
        found = [result.found for result in comparison.finished(name).values()]
        cuda = [one["cuda_bytes"] for one in found if one["cuda_bytes"]]
        rows.append(
            [
                name,
                f"{np.mean([one['steps'] for one in found]):,.0f}",
                f"{1000 * np.mean([one['step_seconds'] or np.nan for one in found]):.0f} ms",
                f"{np.mean([one['seconds'] for one in found]):,.0f} s",
                f"{np.mean([one['memory_bytes'] for one in found]) / 2**30:.2f} GiB",
                f"{np.mean(cuda) / 2**30:.2f} GiB" if cuda else DASH,
            ]
        )
    notes = [
        "Time per step: the median, without data loading and validation. Training: the total time, including both.",
        "Memory: the peak of the process, including its libraries. Other processes on the machine affect the times.",
    ]
    machines = {
        tuple(r.found["machine"].get(fact) for fact in ("processor", "threads", "device"))
        for name in comparison.shown
        for r in comparison.finished(name).values()
    }
    if len(machines) > 1:
        notes.append("The runs are of several machines: do not compare their times.")
    return Table(["run", "steps", "time per step", "training", "main memory", "GPU memory"], rows, notes)


def unfinished_table(comparison: Comparison) -> Table | None:
    """Return the table of the runs without results; None if all are finished."""
    seeds: dict[tuple[str, str], list[str]] = {}
    for result in comparison.unfinished:
        seeds.setdefault((result.run.name, result.state), []).append(str(result.run.seed))
    rows = [[name, ", ".join(some), state] for (name, state), some in seeds.items()]
    return Table(["run", "seeds", "state"], rows) if rows else None


def machine_table(comparison: Comparison) -> Table:
    """Return the table of versions and machines; if values differ, each is listed with its runs."""
    runs_of: dict[str, dict[str, list[str]]] = {}
    for name in comparison.shown:
        for seed, result in comparison.finished(name).items():
            facts = {**result.found["machine"], **result.found["versions"]}
            for fact, value in facts.items():
                runs_of.setdefault(fact, {}).setdefault(str(value), []).append(f"{name}, seed {seed}")
    rows = []
    for fact, values in runs_of.items():
        cells = [value if len(values) == 1 else f"{value} ({'; '.join(runs)})" for value, runs in values.items()]
        rows.append([fact, " / ".join(cells)])
    return Table(["", ""], rows)
