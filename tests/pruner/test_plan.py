"""A plan written and read is equal; a file that is no plan is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lut.errors import RunError
from pruner.plan import PrunePlan, read_ranges, write_ranges

PLAN = PrunePlan(
    network_hash="abc",
    kept={"a": (0, 1, 2, 5), "b": (3,)},
    sizes={"a": 6, "b": 4},
    removed={"a.weight": {0: [3, 4], 1: [0]}},
    shapes={"a.weight": (4, 3, 1, 1)},
    budget_ms=8.0,
    prediction={"predicted_ms": 7.5, "low_ms": 7.0, "high_ms": 8.0},
    fingerprint={"device": "x"},
    frozen=("head",),
    created_with={"torch": "2.14"},
)


def test_a_plan_written_and_read_is_equal(tmp_path: Path) -> None:
    PLAN.write(tmp_path / "plan.json")
    assert PrunePlan.read(tmp_path / "plan.json") == PLAN
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def test_a_plan_tells_widths_and_what_goes() -> None:
    assert PLAN.widths == {"a": 4, "b": 1}
    assert PLAN.removal == {"a": [3, 4], "b": [0, 1, 2]}


@given(st.sets(st.integers(0, 300)))
def test_ranges_written_and_read_are_equal(positions: set[int]) -> None:
    assert read_ranges(write_ranges(list(positions))) == tuple(sorted(positions))


def test_ranges_are_compact() -> None:
    assert write_ranges([7, 0, 1, 2, 3, 8]) == "0-3,7-8"


def change(**changes: Any) -> str:
    data = PLAN.to_json() | changes
    return json.dumps({key: value for key, value in data.items() if value is not ...}, default=str)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read"),
        ("[]", "not a plan of latprune"),
        ('{"format": "other"}', "not a plan of latprune"),
        (change(version=99), "newer latprune"),
        (change(version="1"), "damaged"),
        (change(kept=...), "lacks 'kept'"),
        (change(kept={"a": "x"}), "damaged"),
        (change(removed=[1]), "damaged"),
    ],
)
def test_a_file_that_is_no_plan_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RunError, match=said):
        PrunePlan.read(path)


def test_a_plan_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="There is no"):
        PrunePlan.read(tmp_path / "plan.json")
