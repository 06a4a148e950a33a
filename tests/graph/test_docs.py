"""docs/graph.md: its examples run, and its table has a row for every operation; its figures are
those of the last run."""

import doctest
import json
import re
from pathlib import Path

from fastbp.benchmarks.report import microseconds
from fastbp.graph.table import OPERATIONS

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "graph.md"


def test_examples_run():
    options = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    done = doctest.testfile(str(PAGE), module_relative=False, optionflags=options)
    assert done.attempted > 10
    assert done.failed == 0


def test_every_operation_has_its_rule_on_the_page():
    rows = re.findall(r"^\| `([\w`, ]+)` \|", PAGE.read_text(encoding="utf-8"), re.M)
    named = {name for row in rows for name in row.replace("`", "").split(", ")}
    assert OPERATIONS.keys() - named == set()


def test_measured_cost_is_that_of_the_committed_run():
    run = json.loads((ROOT / "bench" / "results" / "graph.json").read_text(encoding="utf-8"))
    page = PAGE.read_text(encoding="utf-8")
    for row in run["rows"]:
        cells = [row["net"], row["nodes"], row["value"]]
        for name in ("back-propagation", "gradient as a graph"):
            cells += [microseconds(row["seconds"][name]), f"{row['figures'][name]:.1f}"]
        assert f"| {' | '.join(map(str, cells))} |" in page
