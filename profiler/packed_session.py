"""What a session knows that times whole networks, and their units alone: rows as they come, and corrected ones."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lut import LatencyTable, Predictor, TableFile
from lut.errors import MissingFamilyError
from lut.records import Measurement, NetworkMeasurement
from profiler.export import write_onnx
from profiler.inplace import Owners
from profiler.isolated import Arbitrated, TimeAlone, Whole, arbitrate
from profiler.network import Network
from profiler.packed_units import Changed, UnitTimer, corrected, distinct_units, none_told, told_by
from profiler.pieces import Pieces
from profiler.profile_records import RECENT, PackedCheck, ProfileConfig, is_stepped
from profiler.variants import Variants
from profiler.worker_client import WorkerClient


@dataclass(frozen=True)
class Bench:
    """What a session works with.

    Attributes:
        network, variants: what is measured.
        store: where rows go.
        client: the runtime's worker, or a simulation of it.
        config: how much to measure.
        compiles: whether the runtime tells kernels, and with them layout changes at borders.
    """

    network: Network
    variants: Variants
    store: TableFile
    client: WorkerClient
    config: ProfileConfig
    compiles: bool = False


class Session:
    """One session: what is known of networks and units, and the table as it would stand."""

    def __init__(self, bench: Bench, folder: Path, over: Callable[[], bool]) -> None:
        self.bench, self.folder, self.over = bench, folder, over
        self.network, self.variants = bench.network, bench.variants
        self.client, self.config = bench.client, bench.config
        self.fingerprint = bench.client.fingerprint()
        capability = self.fingerprint.compute_capability
        changed: Changed = told_by(bench.client, capability) if bench.compiles and capability else none_told
        self.timer = UnitTimer(bench.client, changed, folder, bench.config.copies, bench.config.measure_copies)
        self.owners = Owners.of(bench.variants)
        networks = bench.store.networks(self.fingerprint, self.network.hash)
        self.known = [whole for whole in networks if whole.failure is None and whole.median_ms]
        stored = bench.store.measurements(self.fingerprint)
        self.alone = {row.spec: row for row in stored if row.place == "isolated" and not row.memory_alone}
        self.timed = 0
        self.errors: dict[bool, list[float]] = {True: [], False: []}
        self.all_errors: list[float] = []
        self.arbitrated: Arbitrated | None = None
        self.predictor = self.fit()
        self.reference = folder / "reference.onnx"
        half = {name: max(1, size // 2) for name, size in self.network.widths.items()}
        write_onnx(self.variants.at(self.variants.widths_removal(half)), self.reference)
        self.baseline_ms = self.predictor.latency_ms(half) if self.predictor and self.known else None
        self.drift = 1.0

    def measure(self, widths: Mapping[str, int]) -> NetworkMeasurement:
        """Time the network at these widths and store it."""
        path = self.folder / "variant.onnx"
        write_onnx(self.variants.at(self.variants.widths_removal(widths)), path)
        reply = self.client.time(path, self.config.measure, reference=self.reference)
        self._set_drift(reply.reference_median_ms)
        good = reply.failure is None and reply.median_ms is not None
        whole = NetworkMeasurement(
            network=self.network.hash,
            widths=tuple(sorted(widths.items())),
            config=self.config.measure,
            samples_ms=reply.samples_ms if good else (),
            median_ms=reply.median_ms / self.drift if good and reply.median_ms else None,
            noise=reply.noise if good else None,
            discarded=reply.discarded,
            failure=None if good else reply.failure or "no time came back",
            precision=self.network.units[0].family.precision if self.network.units else None,
        )
        self.bench.store.add_network(self.fingerprint, whole)
        if good and whole.median_ms:
            self._judge(widths, whole.median_ms)
            self.known.append(whole)
        return whole

    def _set_drift(self, reference_ms: float | None) -> None:
        if reference_ms is not None:
            self.baseline_ms = self.baseline_ms or reference_ms
            self.drift = reference_ms / self.baseline_ms

    def _judge(self, widths: Mapping[str, int], ms: float) -> None:
        """Note by how much the prediction was off that could be made before."""
        if self.predictor is not None and dict(widths) != self.network.widths:
            error = abs(self.predictor.latency_ms(widths) / ms - 1)
            self.errors[is_stepped(widths, self.network.widths)].append(error)
            self.all_errors.append(error)

    def time_units(self, widths: Mapping[str, int], progress: Callable[[str], None]) -> bool:
        """Time the units at these widths that are not known, each stored at once; tell whether none is left."""
        numbers = list(distinct_units(self.network, widths, self.alone))
        if not numbers:
            return True
        pieces = Pieces(self.variants.at(self.variants.widths_removal(widths)), self.owners)
        for done, number in enumerate(numbers):
            if self.over():
                return False
            progress(f"unit {done + 1} of {len(numbers)} at these widths")
            spec = self.network.units[number].spec(widths)
            row = self.timer.measure(spec, pieces, number, self.drift)
            self.bench.store.add_measurements(self.fingerprint, [row])
            self.alone[spec] = row
            self.timed += row.failure is None
        return True

    def catch_up(self, progress: Callable[[str], None]) -> None:
        """Time what an interrupted session left of the networks that it measured."""
        for whole in self.known:
            widths = dict(whole.widths)
            if any(True for _ in distinct_units(self.network, widths, self.alone)):
                self._set_drift(self.client.time(self.reference, self.config.measure).median_ms)
                if not self.time_units(widths, progress):
                    return

    def fit(self) -> Predictor | None:
        """A predictor from all that is known; None while families are missing."""
        self.arbitrated = self._arbitrate()
        table = LatencyTable(self.fingerprint, self.rows(), networks=self.known)
        try:
            return Predictor(self.network.units, table, network=self.network.hash)
        except MissingFamilyError:
            return None

    def rows(self) -> list[Measurement]:
        """Units' rows, corrected where whole networks suffice for it."""
        found = self.arbitrated
        if found is None:
            return list(self.alone.values())
        return [
            corrected(row, found.units[spec.key]) if spec.key in found.units else row
            for spec, row in self.alone.items()
        ]

    def _arbitrate(self) -> Arbitrated | None:
        """Correct this network's units by its whole runs; None while fewer than two have all their units timed."""
        good = {spec: row for spec, row in self.alone.items() if row.failure is None and row.median_ms}
        families = {unit.family for unit in self.network.units}
        wholes = []
        for whole in self.known:
            specs = Counter(unit.spec(dict(whole.widths)) for unit in self.network.units)
            if all(spec in good for spec in specs):
                counts = {spec.key: count for spec, count in specs.items()}
                wholes.append(Whole(counts, whole.median_ms or 0.0, whole.noise or 0.0))
        if len(wholes) < 2:
            return None
        own = {spec: row for spec, row in good.items() if spec.family in families}
        alone = {spec.key: _time_alone(row) for spec, row in own.items()}
        found = arbitrate(alone, wholes, kinds={spec.key: spec.family.key for spec in own})
        return found if found.scale > 0 else None

    def finish(self) -> None:
        """Store corrected rows, if anything was added that they could rest on."""
        self.predictor = self.fit()
        if self.arbitrated is not None and (self.timed or self.all_errors):
            rows = [row for row in self.rows() if row.place == "corrected"]
            self.bench.store.add_measurements(self.fingerprint, rows)

    def recent_error(self) -> float | None:
        """Mean relative error of the last predictions, each made before its measurement."""
        return float(np.mean(self.all_errors[-RECENT:])) if self.all_errors else None

    def check(self) -> PackedCheck:
        """What came of the units."""
        own = {unit.family for unit in self.network.units}
        failed = [row for spec, row in self.alone.items() if row.failure is not None and spec.family in own]
        found = self.arbitrated
        return PackedCheck(
            units=self.timed,
            failed=len(failed),
            scale=found.scale if found else None,
            residual=found.residual if found else None,
            because=f"{failed[0].spec.family}: {failed[0].failure}" if failed else None,
        )


def _time_alone(row: Measurement) -> TimeAlone:
    ms = row.median_ms or 0.0
    return TimeAlone(ms, ms * (row.noise or 0.0))
