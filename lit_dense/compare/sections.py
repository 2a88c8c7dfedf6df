"""The words and tables of a report."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .results import Comparison, Result
from .statistics import RESAMPLES, Difference, Spread, Verdict, mean_of, thirds

MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"
FREQUENCIES = ("rare", "common", "frequent")


@dataclass(frozen=True)
class Table:
    """A table of words.

    Args:
        headers: Of the columns; the first column names the row.
        rows: Cells.
        notes: What to know when reading it, sentence by sentence.
        bold: Places of the rows that stand out.
    """

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    bold: Sequence[int] = ()


def others(comparison: Comparison) -> list[str]:
    """The configurations that can be compared with the baseline."""
    if not comparison.finished(comparison.baseline):
        return []
    return [name for name in comparison.shown if name != comparison.baseline and comparison.difference(name)]


def summary(comparison: Comparison) -> str:
    """Which differences are real and which are within the noise, in a sentence or two."""
    if not comparison.shown:
        return "No run is finished yet."
    base = comparison.spread(comparison.baseline, "map")
    compared = {name: comparison.difference(name) for name in others(comparison)}
    if base is None or not compared:
        missing = not comparison.finished(comparison.baseline)
        return f"There is nothing to compare yet: {'the baseline' if missing else 'no other run'} is " + (
            "not finished." if missing else "finished with the seeds of the baseline."
        )
    kinds: dict[str, list[str]] = {}
    for name, difference in compared.items():
        if difference:
            kinds.setdefault(difference.verdict, []).append(_by_how_much(name, difference))
    clauses = [
        f"{_listed(kinds[verdict])} {_are(kinds[verdict], *words)}" for verdict, words in _SAID if verdict in kinds
    ]
    said = f"Compared with {comparison.baseline} (AP {base.mean:.3f}): {'; '.join(clauses)}."
    single = [name for name, difference in compared.items() if difference and len(difference.per_seed) == 1]
    if not single:
        return said
    of = "" if len(single) == len(compared) else f", as of {_listed(single)},"
    return f"{said} One seed{of} cannot tell: it says nothing of the spread over seeds. Take three at least."


_SAID: tuple[tuple[Verdict, tuple[str, str]], ...] = (
    ("better", ("is better", "are better")),
    ("worse", ("is worse", "are worse")),
    ("one seed", ("differs by more than the images explain", "differ by more than the images explain")),
    ("within the noise", ("is within the noise", "are within the noise")),
    ("not known", ("has no interval", "have no interval")),
)


def _are(words: Sequence[str], one: str, several: str) -> str:
    return one if len(words) == 1 else several


def _by_how_much(name: str, difference: Difference) -> str:
    return f"{name} ({signed(difference.mean)})"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def signed(number: float) -> str:
    """A difference with its sign, a real minus among them."""
    shown = f"{number:+.3f}".replace("-", MINUS)
    return shown if float(shown[1:]) else shown[1:]


def with_range(spread: Spread | None) -> str:
    """A mean, and smallest and largest where there are several."""
    if spread is None:
        return DASH
    if len(spread.values) == 1:
        return f"{spread.mean:.3f}"
    return f"{spread.mean:.3f} ({spread.low:.3f}{DASH}{spread.high:.3f})"


def title(comparison: Comparison) -> str:
    """The names, or their number where there are many."""
    names = comparison.names
    return f"Comparison of {_listed(names) if len(names) <= 4 else f'{len(names)} configurations'}"


def main_table(comparison: Comparison) -> Table:
    """AP of every run and its difference to the baseline."""
    rows = []
    for name in comparison.shown:
        seeds = comparison.finished(name)
        ap, ap_50, ap_75 = (with_range(comparison.spread(name, number)) for number in ("map", "map_50", "map_75"))
        rows.append([name, ap, *_difference_cells(comparison, name), ap_50, ap_75, _seeds(seeds)])
    images = len(next(iter(comparison.finished(comparison.shown[0]).values())).image_ids())
    notes = [
        "AP is COCO's, of the validation set, of the weights at the end of training: no best validation is chosen.",
        "In brackets: the smallest and the largest seed. Difference: to the baseline, over the seeds that both have.",
        f"Interval: 95 % bootstrap over the {images} validation images ({RESAMPLES} resamples, the same for both runs, "
        "seeds averaged).",
        "Within the noise: the interval holds 0, or the spread over seeds explains the difference (Student's t, 95 %).",
        "One seed: more than the images explain, but the spread over seeds is unknown.",
    ]
    headers = ["run", "AP", "difference", "95 % interval", "verdict", "AP50", "AP75", "seeds"]
    return Table(headers, rows, notes, [comparison.shown.index(name) for name in _real(comparison)])


def _real(comparison: Comparison) -> list[str]:
    found = {name: comparison.difference(name) for name in others(comparison)}
    return [name for name, difference in found.items() if difference and difference.verdict in ("better", "worse")]


def _difference_cells(comparison: Comparison, name: str) -> list[str]:
    if name == comparison.baseline:
        return ["", "", "baseline"]
    difference = comparison.difference(name) if name in others(comparison) else None
    if difference is None:
        return [DASH, DASH, "no seed in common with the baseline"]
    said = str(difference.verdict)
    if np.isnan(difference.low):
        return [signed(difference.mean), DASH, said]
    return [signed(difference.mean), f"{signed(difference.low)} to {signed(difference.high)}", said]


def _seeds(results: dict[int, Result]) -> str:
    return ", ".join(map(str, results))


def groups_table(comparison: Comparison) -> Table | None:
    """AP of rare, common and frequent classes: LVIS's groups where two of them have classes, else thirds."""
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
        means = {g: [mean_of(r.tables.ap, ls) for r in comparison.finished(name).values()] for g, ls in groups.items()}
        rows.append([name, *(_range_of(values) for values in means.values())])
    listed = "; ".join(f"{group}: {', '.join(names[label] for label in labels)}" for group, labels in groups.items())
    note = "AP of thirds of the classes, by their number of training boxes"
    return Table(["run", *groups], rows, [f"{note}: {listed}." if len(names) <= 30 else f"{note}."])


def _range_of(values: Sequence[float]) -> str:
    known = tuple(value for value in values if not np.isnan(value))
    return with_range(Spread(known) if known else None)


def class_names(comparison: Comparison) -> tuple[str, ...]:
    """The classes."""
    return next(iter(comparison.finished(comparison.shown[0]).values())).tables.class_names


def _training_boxes(comparison: Comparison) -> list[int]:
    found = next(iter(comparison.finished(comparison.shown[0]).values())).found
    return list(found.get("training_boxes") or [])


def classes_table(comparison: Comparison, number: str) -> Table:
    """A number of every class and run, the mean over seeds; the most frequent class first.

    Args:
        comparison: What is compared.
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
    """Time and memory of each run, means over the seeds."""
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
        "Time per step: the median, without loading data and without validation; training: all of it, with both.",
        "Memory: the most that the process had, its libraries included. Other work on the machine changes the times.",
    ]
    return Table(["run", "steps", "time per step", "training", "main memory", "GPU memory"], rows, notes)


def unfinished_table(comparison: Comparison) -> Table | None:
    """The runs that the report can say nothing of."""
    seeds: dict[tuple[str, str], list[str]] = {}
    for result in comparison.unfinished:
        seeds.setdefault((result.run.name, result.state), []).append(str(result.run.seed))
    rows = [[name, ", ".join(some), state] for (name, state), some in seeds.items()]
    return Table(["run", "seeds", "state"], rows) if rows else None


def machine_table(comparison: Comparison) -> Table:
    """Versions and machines, each once with the runs that it belongs to."""
    found: dict[str, dict[str, list[str]]] = {}
    for name in comparison.shown:
        for seed, result in comparison.finished(name).items():
            facts = {**result.found["machine"], **result.found["versions"]}
            for fact, value in facts.items():
                found.setdefault(fact, {}).setdefault(str(value), []).append(f"{name}, seed {seed}")
    rows = []
    for fact, values in found.items():
        said = [value if len(values) == 1 else f"{value} ({'; '.join(runs)})" for value, runs in values.items()]
        rows.append([fact, " / ".join(said)])
    return Table(["", ""], rows)
