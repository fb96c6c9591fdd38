"""Merging tables: equal fingerprints join, others stand side by side, contradictions are refused; all or nothing."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lut import DeviceFingerprint, Measurement, NetworkMeasurement, TableError, TableFile
from lut.merge import ConflictError, MergeReport, merge, new_rows
from tests.lut.examples import CONFIG, CPU, GPU, network_row, row

NEWER = replace(CPU, runtime_version="1.33")


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    def write(
        name: str,
        rows: Sequence[Measurement],
        networks: Sequence[NetworkMeasurement] = (),
        fingerprint: DeviceFingerprint = CPU,
    ) -> Path:
        with TableFile(tmp_path / name, create=True) as file:
            file.add_measurements(fingerprint, rows)
            for network in networks:
                file.add_network(fingerprint, network)
        return tmp_path / name

    return write


def contents(path: Path) -> dict[DeviceFingerprint, tuple[list[Measurement], list[NetworkMeasurement]]]:
    with TableFile(path) as file:
        return {found: (file.measurements(found), file.networks(found)) for found in file.fingerprints()}


def measured(seed: int, count: int = 30, *, factor: float = 1.0, first: int = 1) -> list[Measurement]:
    """Rows of one machine, a factor slower, as one session measures them."""
    generator = np.random.default_rng(seed)
    times = 0.05 * np.arange(first, first + count) * factor * np.exp(generator.normal(0, 0.01, count))
    return [row((first + number, 8), float(ms)) for number, ms in enumerate(times)]


def test_equal_fingerprints_join_and_others_stand_side_by_side(make: Callable[..., Path], tmp_path: Path) -> None:
    here = make("a.db", [row((8, 8), 1.0)], [network_row({"a": 8}, 2.0)])
    also = make("b.db", [row((9, 8), 1.1)])
    newer = make("c.db", [row((8, 8), 5.0)], [network_row({"a": 8}, 9.0)], NEWER)
    report = merge([here, also, newer], tmp_path / "out.db")
    assert contents(tmp_path / "out.db") == {
        CPU: ([row((8, 8), 1.0), row((9, 8), 1.1)], [network_row({"a": 8}, 2.0)]),
        NEWER: ([row((8, 8), 5.0)], [network_row({"a": 8}, 9.0)]),
    }
    assert [(file.rows, file.networks, file.identical) for file in report.files] == [(1, 1, 0), (1, 0, 0), (1, 1, 0)]
    assert report.fingerprints == (CPU, NEWER)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.db", "b.db", "c.db", "out.db"]


def test_a_copy_that_was_extended_gives_what_is_new_in_it(make: Callable[..., Path], tmp_path: Path) -> None:
    old = [row((8, 8), 1.0), row((8, 8), 1.0), row((9, 8), 1.1)]
    a, b = make("a.db", old), make("b.db", [*old, row((10, 8), 1.2)])
    report = merge([a, b, a], tmp_path / "out.db")
    assert contents(tmp_path / "out.db")[CPU][0] == [*old, row((10, 8), 1.2)]
    assert (report.files[1].rows, report.files[1].identical) == (1, 3)


@given(st.lists(st.lists(st.integers(0, 4), max_size=6), min_size=1, max_size=4))
def test_each_row_counts_as_often_as_where_it_is_most_often(files: list[list[int]]) -> None:
    held: list[int] = []
    for file in files:
        held += new_rows(held, file)
    most = Counter[int]()
    for file in files:
        most |= Counter(file)
    assert Counter(held) == most


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_two_sessions_on_one_machine_are_no_conflict(seed: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(2):
            with TableFile(folder / f"{number}.db", create=True) as file:
                file.add_measurements(CPU, measured(2 * seed + number, factor=(1.0, 1.02)[number]))
        report = merge([folder / "0.db", folder / "1.db"], folder / "out.db")
        assert (report.files[1].rows, report.conflicts) == (30, ())


def conflicting(make: Callable[..., Path]) -> dict[str, tuple[Path, Path, str]]:
    one = make("one.db", measured(0))
    odd = [
        replace(found, median_ms=(found.median_ms or 0) * (1.5, 0.7, 1, 1)[n % 4])
        for n, found in enumerate(measured(1))
    ]
    nets = [network_row({"a": width}, 1.0 * width) for width in (2, 4, 8)]
    slow = [network_row({"a": width}, 1.3 * width) for width in (2, 4, 8)]
    return {
        "another machine of the same name": (one, make("slow.db", measured(1, factor=1.12)), "% slower in 30 units"),
        "a faster one": (make("slow2.db", measured(1, factor=1.5)), one, "% faster"),
        "single rows": (one, make("odd.db", odd), "other times than noise explains in"),
        "one row alone": (make("x.db", [row((8, 8), 1.0)]), make("y.db", [row((8, 8), 1.3)]), "30 % slower"),
        "whole networks": (make("n.db", [], nets), make("m.db", [], slow), "30 % slower in 3 whole networks"),
        "behind a common past": (
            make("past.db", measured(0)),
            make("both.db", [*measured(0), *measured(1, 10, factor=1.3)]),
            "slower in 10 units",
        ),
    }


@pytest.mark.parametrize("name", conflicting(lambda *_: Path()))
def test_conflicting_rows_are_refused_with_what_was_found_and_nothing_is_written(
    make: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    first, second, said = conflicting(make)[name]
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for out in (tmp_path / "out.db", first):
        with pytest.raises(ConflictError, match="not merged") as caught:
            merge([first, second], out)
        assert said in str(caught.value)
        assert CPU.key in str(caught.value)
        assert "--allow-conflicts" in str(caught.value)
        assert str(caught.value).count("\n") == 1
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_conflicts_that_are_allowed_are_told(make: Callable[..., Path], tmp_path: Path) -> None:
    one, slow = make("one.db", measured(0)), make("slow.db", measured(1, factor=1.3))
    report = merge([one, slow], tmp_path / "out.db", allow_conflicts=True)
    assert len(contents(tmp_path / "out.db")[CPU][0]) == 60
    (conflict,) = report.conflicts
    assert conflict.comparison.ratio == pytest.approx(1.3, rel=0.02)
    assert conflict.path == slow


def test_failures_and_other_conditions_are_no_conflict(make: Callable[..., Path], tmp_path: Path) -> None:
    failed = Measurement(row((8, 8), 1.0).spec, CONFIG, (), None, None, failure="crash")
    cold = replace(row((8, 8), 3.0), config=replace(CONFIG, cache="cold"))
    isolated = replace(row((8, 8), 2.0), place="isolated")
    report = merge([make("a.db", [row((8, 8), 1.0)]), make("b.db", [failed, cold, isolated])], tmp_path / "out.db")
    assert report.files[1].rows == 3


def test_a_table_is_extended_in_its_place(make: Callable[..., Path], tmp_path: Path) -> None:
    a, b = make("a.db", [row((8, 8), 1.0)]), make("b.db", [row((8, 8), 0.1)], fingerprint=GPU)
    report = merge([b, a], a)
    assert report.extended
    assert [file.path for file in report.files] == [b]
    assert list(contents(a)) == [CPU, GPU]
    assert merge([a, b], a).files[0].rows == 0
    assert len(contents(a)[GPU][0]) == 1


def test_some_fingerprints_alone_can_be_taken_out(make: Callable[..., Path], tmp_path: Path) -> None:
    a = make("a.db", [row((8, 8), 1.0)])
    make("a.db", [row((8, 8), 0.1)], fingerprint=GPU)
    merge([a], tmp_path / "gpu.db", only=[GPU.key[:6]])
    assert list(contents(tmp_path / "gpu.db")) == [GPU]
    with pytest.raises(TableError, match="no fingerprint's key begins with 'zz'") as caught:
        merge([a], tmp_path / "none.db", only=["zz"])
    assert CPU.key in str(caught.value)
    assert not (tmp_path / "none.db").exists()


def test_a_file_that_is_there_already_is_never_overwritten(make: Callable[..., Path], tmp_path: Path) -> None:
    a, b, c = (make(name, [row((8, 8), 1.0)]) for name in ("a.db", "b.db", "c.db"))
    (tmp_path / "text").write_text("no table")
    with pytest.raises(TableError, match="there already"):
        merge([a, b], c)
    with pytest.raises(TableError, match="not a latency table"):
        merge([a, b], tmp_path / "text")
    with pytest.raises(TableError, match="no directory"):
        merge([a, b], tmp_path / "nowhere" / "out.db")
    with pytest.raises(TableError, match="not a latency table"):
        merge([a, tmp_path / "text"], tmp_path / "out.db")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.db", "b.db", "c.db", "text"]


def test_a_merge_that_is_stopped_in_the_middle_leaves_nothing(make: Callable[..., Path], tmp_path: Path) -> None:
    def stop(done: int, _path: Path) -> None:
        if done == 1:
            raise KeyboardInterrupt

    a, b, c = (make(f"{number}.db", measured(0, first=10 * number, count=10)) for number in (1, 2, 3))
    before = a.read_bytes()
    for out in (tmp_path / "out.db", a):
        with pytest.raises(KeyboardInterrupt):
            merge([a, b, c], out, progress=stop)
    assert a.read_bytes() == before
    assert len(contents(a)[CPU][0]) == 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.db", "2.db", "3.db"]
    report: MergeReport = merge([a, b, c], tmp_path / "out.db")
    assert [file.rows for file in report.files] == [10, 10, 10]
