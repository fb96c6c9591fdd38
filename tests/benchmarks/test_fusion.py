"""What `docs/fusion.md` says follows from the rows; these rows are made up, and no compiler's."""

import json
from pathlib import Path
from typing import Any

from benchmarks.fusion_report import MARK, write_report

BUILT: dict[str, Any] = {
    "widths": "uneven",
    "failure": None,
    "nodes": 10,
    "covered": 7,
    "folded": {"view": 2},
    "unaccounted": ["node_odd"],
    "roles": {"work": 5, "padding": 2},
    "pads": 3,
    "streams": {"0": 5, "1": 2},
    "agreements": {"alone": 2, "several": 1, "shared": 1, "gone": 4},
    "patterns": {"cat + elementwise": 1},
    "spread": {},
}
FAILED: dict[str, Any] = {"widths": "full", "failure": "it cannot be built\nat all", "patterns": None, "spread": None}


def _keep(store: Path, name: str, rows: list[dict[str, Any]]) -> None:
    content = {"name": name, "date": "2026-01-02", "versions": {"onnx": "1.2"}, "rows": rows}
    (store / name).write_text(json.dumps(content))


def test_the_report_counts_what_is_unaccounted_for_and_what_failed(tmp_path: Path) -> None:
    _keep(tmp_path, "a-net.fp32.json", [FAILED, BUILT])
    report = tmp_path / "fusion.md"
    report.write_text(f"# Fusion\n\nkept\n\n{MARK}\noutdated\n")
    write_report(report, tmp_path, ("A net", "Another"), ("fp32", "fp16"))
    text = report.read_text()
    assert text.startswith(f"# Fusion\n\nkept\n\n{MARK}\n\n")
    assert "outdated" not in text
    assert "7 of 10 nodes are in kernels, 2 fall under a rule, **1 are unaccounted for**" in text
    assert "| A net | full | not built: it cannot be built |" in text
    assert "| A net | uneven | 10 | 7 | 2 view | node_odd | 7 | 2 | 1 | 0 | 0 | 2 |" in text
    assert "agrees for 3 of 4 units that bear time (75.0%)" in text
    assert "| cat + elementwise | 1 | A net |" in text
    assert "fp16" not in text


def test_padding_is_told_in_multiples_where_it_is_one(tmp_path: Path) -> None:
    at = {str(width): [0, width % 2] for width in range(56, 73)}
    rows = [
        {"precision": "fp16", "operation": "linear", "at": at},
        {"precision": "int8", "operation": "linear", "failure": "no"},
    ]
    _keep(tmp_path, "padding.all.json", rows)
    report = tmp_path / "fusion.md"
    write_report(report, tmp_path, (), ())
    assert "| fp16 | linear | multiples of 2 | none | all but multiples of 2 |" in report.read_text()
    assert "not built: no" in report.read_text()
