"""Timing a table's rows anew: on a machine that is made up, where the truth is known, and once on the real one."""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pytest

from lut import (
    DeviceFingerprint,
    MeasureConfig,
    Measurement,
    NetworkMeasurement,
    TableError,
    TableFile,
    open_table,
)
from lut.merge import merge
from lut.recheck import is_adopted
from profiler.network import Network
from profiler.profile import ProfileConfig, profile
from profiler.recheck import RecheckConfig, adopt_rows, recheck
from profiler.variants import prepare
from tests.lut.examples import CPU
from tests.profiler.session_server import small_network

NEWER = replace(CPU, runtime_version="1.33")
CONFIG = MeasureConfig()
WIDTHS = [(16, 16), (12, 16), (16, 8), (8, 8), (5, 9), (4, 4), (3, 7)]
Factor = Callable[[Measurement], float]


@pytest.fixture(scope="module")
def network() -> Network:
    return small_network()


def run_at(
    network: Network, widths: dict[str, int], seed: int, factor: Factor = lambda _: 1.0
) -> tuple[NetworkMeasurement, list[Measurement]]:
    """What a machine would tell: units whose time goes with their work, with 1 % of noise from run to run."""
    generator = np.random.default_rng(seed)
    rows = []
    for unit in network.units:
        ms = 0.02 + 2e-6 * unit.macs(widths) + 1e-3 * sum(unit.channels(widths))
        own = Measurement(unit.spec(widths), CONFIG, (ms,) * 5, ms, 0.005)
        rows.append(replace(own, median_ms=ms * factor(own) * float(np.exp(generator.normal(0, 0.01)))))
    total = sum(row.median_ms or 0.0 for row in rows)
    key = tuple(sorted(widths.items()))
    return NetworkMeasurement(network.hash, key, CONFIG, (total,), total, 0.002, total, precision="fp32"), rows


def all_widths(network: Network) -> Iterator[dict[str, int]]:
    names = sorted(network.widths)
    for counts in WIDTHS:
        yield dict(zip(names, counts, strict=True))


@pytest.fixture
def table(network: Network, tmp_path: Path) -> Path:
    with TableFile(tmp_path / "t.db", create=True) as file:
        for seed, widths in enumerate(all_widths(network)):
            file.add_network(CPU, *run_at(network, widths, seed))
    return tmp_path / "t.db"


@dataclass
class Machine:
    """The machine that `recheck` finds itself on."""

    fingerprint: DeviceFingerprint
    factor: Factor = lambda _: 1.0

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        machine = self

        class Client:
            def __init__(self, _backend: str, *, threads: int) -> None:
                self.threads = threads

            def __enter__(self) -> Self:
                return self

            def __exit__(
                self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
            ) -> None:
                """Nothing runs."""

            def fingerprint(self) -> DeviceFingerprint:
                return machine.fingerprint

        def measure(network: Network, chosen: Sequence[Any], *_: object) -> Iterator[Any]:
            for seed, widths in enumerate(chosen):
                yield run_at(network, dict(widths), 100 + seed, machine.factor)

        monkeypatch.setattr("profiler.recheck.WorkerClient", Client)
        monkeypatch.setattr("profiler.recheck._measure", measure)


def contents(path: Path, fingerprint: DeviceFingerprint) -> tuple[list[Measurement], list[NetworkMeasurement]]:
    with TableFile(path) as file:
        return file.measurements(fingerprint), file.networks(fingerprint)


def test_rows_that_hold_are_adopted_marked_and_priced(
    network: Network, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Machine(NEWER).install(monkeypatch)
    before = contents(table, CPU)
    report = recheck(network, table)
    assert (report.old, report.new) == (CPU, NEWER)
    assert report.verdict.kind == "holds"
    assert report.verdict.comparison.count == 20
    assert report.verdict.comparison.ratio == pytest.approx(1.0, abs=0.02)
    assert contents(table, NEWER) == ([], [])
    assert adopt_rows(table, report) == len(before[0]) + len(before[1])
    assert contents(table, CPU) == before
    rows, networks = contents(table, NEWER)
    assert sum(is_adopted(row) for row in rows) == len(before[0])
    assert sum(is_adopted(row) for row in networks) == len(before[1])
    assert len(networks) == len(before[1]) + len(report.runs)
    assert adopt_rows(table, replace(report, runs=())) == 0
    assert contents(table, NEWER) == (rows, networks)


def test_adopted_rows_price_what_the_old_ones_did(
    network: Network, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Machine(NEWER).install(monkeypatch)
    before = open_table(table)
    adopt_rows(table, recheck(network, table))
    merge([table], table.parent / "new.db", only=[NEWER.key])
    after = open_table(table.parent / "new.db")
    assert after.fingerprint == NEWER
    for unit in network.units:
        spec = unit.spec(network.widths)
        assert after.estimate(spec).ms == pytest.approx(before.estimate(spec).ms, rel=0.1)


@pytest.mark.parametrize(
    ("factor", "kind"),
    [
        (lambda _: 1.3, "holds up to a factor"),
        (lambda row: 1.6 if row.spec.family.operation == "convolution" else 1.0, "does not hold"),
    ],
)
def test_rows_that_do_not_hold_are_not_adopted(
    network: Network, table: Path, monkeypatch: pytest.MonkeyPatch, factor: Factor, kind: str
) -> None:
    Machine(NEWER, factor).install(monkeypatch)
    report = recheck(network, table)
    assert report.verdict.kind == kind
    with pytest.raises(ValueError, match="hold"):
        adopt_rows(table, report)
    assert contents(table, NEWER) == ([], [])


def test_an_unchanged_machine_is_checked_and_has_nothing_to_adopt(
    network: Network, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Machine(CPU).install(monkeypatch)
    report = recheck(network, table, config=RecheckConfig(rows=7, networks=2))
    assert report.old == report.new
    assert (report.verdict.kind, report.verdict.comparison.count) == ("holds", 7)
    assert len(report.runs) == math.ceil(2 * 7 / len(network.units))
    with pytest.raises(ValueError, match="another fingerprint"):
        adopt_rows(table, report)


def test_another_device_another_network_and_a_choice_are_said(
    network: Network, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Machine(replace(CPU, device="Other CPU (4 cores)")).install(monkeypatch)
    with pytest.raises(TableError, match="another device: device Some CPU"):
        recheck(network, table)
    Machine(NEWER).install(monkeypatch)
    with pytest.raises(TableError, match="no whole network of this task"):
        recheck(network, table, fits=lambda _: False)
    oldest = replace(CPU, runtime_version="1.30")
    with TableFile(table) as file:
        for seed, widths in enumerate(all_widths(network)):
            file.add_network(oldest, *run_at(network, widths, seed))
    with pytest.raises(TableError, match="--fingerprint KEY") as caught:
        recheck(network, table)
    assert CPU.key in str(caught.value)
    assert oldest.key in str(caught.value)
    assert recheck(network, table, fits=lambda found: found == oldest).old == oldest


def test_a_real_run_times_the_rows_that_the_table_holds(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    variants = prepare(network)
    for module in ("profile", "recheck"):
        monkeypatch.setattr(sys.modules[f"profiler.{module}"], "prepare", lambda _: variants)
    profile(network, tmp_path / "t.db", config=ProfileConfig(networks_min=3, networks_max=3, target_error=0, runs=4))
    events: list[str] = []
    config = RecheckConfig(rows=6, networks=2, runs=4)
    report = recheck(
        network, tmp_path / "t.db", config=config, progress=lambda event: events.append(f"{event.stage} {event.done}")
    )
    assert report.old == report.new
    assert report.verdict.comparison.count == len(report.specs) == 6
    assert (report.rows, report.whole) == (3 * len(network.units), 3)
    held = {row.spec for row in contents(tmp_path / "t.db", report.old)[0]}
    assert set(report.specs) <= held
    assert (report.pairs.new_ms > 0).all()
    assert events[-1] == f"time whole networks anew {len(report.runs)}"
