"""Figures are shown with their spread, an unknown one as such, and the result table in the order that was promised."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pruner.show import format_count, format_mb, format_ms, format_percent, run_files, show_result


@dataclass(frozen=True)
class Kept:
    name: str
    passed: bool
    detail: str = ""


SIDE = {
    "metric": 0.9700,
    "predicted_ms": 1.84,
    "measured_ms": 1.8449,
    "noise": 0.006,
    "parameters": 123456,
    "weights_bytes": 493824,
    "peak_activation_bytes": 1_200_000,
    "workspace_bytes": 0,
    "total_bytes": 1_693_824,
    "traffic_bytes": 9_000_000,
}
RESULT: dict[str, Any] = {
    "budget_ms": 0.92,
    "memory_budget_bytes": None,
    "metric": "top1",
    "before": SIDE,
    "after": {**SIDE, "metric": 0.96, "measured_ms": 0.9, "noise": 0.012, "parameters": 61728},
}


def shown(result: dict[str, Any], checks: list[Kept], out: Path | None = None) -> str:
    file = io.StringIO()
    show_result(result, checks, Console(file=file, width=160), out=out)
    return file.getvalue()


@pytest.mark.parametrize(
    ("ms", "noise", "text"),
    [
        (1.8449, 0.006, "1.84 ms ± 0.6 %"),
        (2.0, 0.123, "2.00 ms ± 12 %"),
        (12.345, None, "12.3 ms"),
        (1234.5, 0.0, "1234 ms ± 0.0 %"),
        (0.01234, 0.01, "0.0123 ms ± 1.0 %"),
        (None, 0.1, "–"),
    ],
)
def test_a_time_is_shown_with_its_spread(ms: float | None, noise: float | None, text: str) -> None:
    assert format_ms(ms, noise) == text


def test_sizes_counts_and_shares_are_short_and_unknown_ones_are_no_zero() -> None:
    assert [format_mb(493824), format_mb(0), format_mb(None)] == ["0.494 MB", "0 MB", "–"]
    assert [format_count(123456.0), format_count(None)] == ["123,456", "–"]
    assert [format_percent(0.006), format_percent(-0.5), format_percent(None)] == ["0.6 %", "-50 %", "–"]


def test_the_result_tells_before_after_and_ratio_then_the_checks() -> None:
    text = shown(
        RESULT, [Kept("latency", True, "0.9 ms of 0.92 ms [measured]"), Kept("outputs", False, "differ by 2e-3")]
    )
    order = ["before", "after", "ratio", "top1", "predicted", "measured", "parameters", "weights", "activation memory"]
    places = [text.index(word) for word in order]
    assert places == sorted(places)
    for part in ("1.84 ms ± 0.6 %", "0.900 ms ± 1.2 %", "0.488", "61,728", "0.500", "budget 0.920 ms"):
        assert part in text
    assert "✓ latency: 0.9 ms of 0.92 ms [measured]" in text
    assert "✗ outputs: differ by 2e-3" in text


def test_nulls_in_a_result_are_shown_as_unknown() -> None:
    sides = {name: dict.fromkeys(SIDE) for name in ("before", "after")}
    text = shown({**RESULT, **sides, "metric": None, "budget_ms": None}, [])
    assert "None" not in text
    assert "budget" not in text
    assert text.count("–") == 15


def test_the_files_of_a_run_are_listed_with_what_they_are(tmp_path: Path) -> None:
    for name in ("model.onnx", "plan.json", "sm86.engine", "state.tmp"):
        (tmp_path / name).touch()
    assert [path.name for path, _ in run_files(tmp_path)] == ["model.onnx", "plan.json", "sm86.engine"]
    assert str(tmp_path / "plan.json") in shown(RESULT, [], tmp_path)
    assert run_files(tmp_path / "none") == []
