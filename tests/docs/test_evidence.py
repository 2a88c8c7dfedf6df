"""docs/evidence.md: the numbers of its tables are those of the committed results."""

import json
import re
from pathlib import Path
from statistics import mean

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "evidence.md"
RESULTS = PAGE.parent / "evidence" / "results"


def tables():
    """The folder of results that each comparison's ``--out`` names, and the rows of its table of runs."""
    for part in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]:
        table = re.search(r"^\| (run \|.+) \|\n\|[-|]+\|\n((?:\|.+\n)+)", part, re.MULTILINE)
        if table:
            folder = next(out for out in re.findall(r"--out runs/(\w+)", part) if (RESULTS / out).is_dir())
            head, *rows = (
                [cell.strip() for cell in line.strip("|").split("|")] for line in table.group(0).splitlines()
            )
            yield folder, {cells[0].strip("`"): dict(zip(head[1:], cells[1:], strict=True)) for cells in rows[1:]}


TABLES = dict(tables())


def final_ap(folder, name):
    """AP at the end of each seed's run; AP of each class and group, and AP50, averaged over the seeds."""
    found = [json.loads(p.read_text())["found"] for p in sorted((RESULTS / folder).glob(f"{name}-seed-*.json"))]
    classes = {key for key in found[0]["numbers"] if re.fullmatch(r"map/\w+", key)}
    averages = {key[4:].lower(): sum(f["numbers"][key] for f in found) / len(found) for key in classes}
    for group in ("frequent", "common", "rare"):
        averages[group] = sum(f["numbers"][f"map_{group}"] for f in found) / len(found)
    averages["ap50"] = sum(f["curve"][-1]["map_50"] for f in found) / len(found)
    return [f["curve"][-1]["map"] for f in found], averages


def short(value):
    return f"{value:.3f}".lstrip("0")


def test_evidence__every_folder_of_results_has_its_table():
    assert set(TABLES) == {folder.name for folder in RESULTS.iterdir()}


@pytest.mark.parametrize("folder", TABLES)
def test_evidence__numbers_are_those_of_the_results(folder):
    rows = TABLES[folder]
    assert set(rows) == {path.name.rsplit("-seed-", 1)[0] for path in (RESULTS / folder).glob("*.json")}
    baseline = final_ap(folder, next(iter(rows)))[0]
    for name, cells in rows.items():
        seeds, averages = final_ap(folder, name)
        shown = cells.get("AP, three seeds") or cells["AP, five seeds"]
        assert shown.split() == [short(value) for value in seeds], name
        assert cells["mean"] == short(mean(seeds)), name
        if cells["difference"]:
            difference = float(cells["difference"].replace("\N{MINUS SIGN}", "-"))
            of_same_seeds = baseline[: len(seeds)]  # a run with fewer seeds has the first ones
            assert difference == pytest.approx(mean(seeds) - mean(of_same_seeds), abs=6e-4), name
        for label, cell in cells.items():
            if label.lower() in averages:
                assert cell.split(" ")[0] == short(averages[label.lower()]), (name, label)
