"""Times a network at given widths against the unpruned one, and lets the table learn from each that is timed."""

import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import onnx

from lut import LatencyTable, Predictor, TableFile
from lut.errors import BackendError, MissingFamilyError, TableError
from lut.records import DeviceFingerprint, MeasureConfig, Measurement, NetworkMeasurement
from profiler.blocks import Block, without_blocks
from profiler.export import write_onnx
from profiler.inplace import Owners, to_rows
from profiler.leftovers import standing
from profiler.variants import Variants
from profiler.worker_client import WorkerClient
from profiler.worker_replies import TimeReply

log = logging.getLogger(__name__)

LOOP_RUNS = 24
LOOP_CONFIG = MeasureConfig(warmup_s=0.1, min_time_s=0.5, max_time_s=5.0, min_samples=40, noise_target=0.006)


class Bench:
    """Times networks against the unpruned one, in one worker, and lets the table learn from each.

    Attributes:
        table: the one that was opened, with the rows of every network measured here.
        predictor: from that table.
        blocks: those that may go, by name.
    """

    def __init__(
        self,
        variants: Variants,
        client: WorkerClient,
        table: LatencyTable,
        *,
        blocks: Sequence[Block] = (),
        latencies: bool = True,
    ) -> None:
        """Write the unpruned network; without `latencies` a table that lacks some merely predicts nothing."""
        self.variants = variants
        self.network = variants.network
        self.blocks = {block.name: block for block in blocks}
        self.client = client
        self.table = table
        self.predictor: Predictor | None = None
        try:
            self.predictor = self._predictor()
        except MissingFamilyError:
            if latencies:
                raise
        self._here: DeviceFingerprint | None = None
        self._owners = Owners.of(variants)
        self._folder = tempfile.TemporaryDirectory(prefix="latprune-")
        self.unpruned = Path(self._folder.name) / "unpruned.onnx"
        write_onnx(variants.at({}), self.unpruned)

    def close(self) -> None:
        """Remove the temporary files."""
        self._folder.cleanup()

    def _predictor(self) -> Predictor:
        return Predictor(self.network.units, self.table, network=self.network.hash)

    def time(self, path: Path, config: MeasureConfig, *, reference: bool = True) -> TimeReply:
        """Time an ONNX file, by turns with the unpruned network.

        Raises:
            BackendError: it cannot be measured.
        """
        return self._timed(self.client, path, config, reference=reference)

    def _timed(self, client: WorkerClient, path: Path, config: MeasureConfig, *, reference: bool = True) -> TimeReply:
        reply = client.time(path, config, reference=self.unpruned if reference else None)
        if reply.failure is not None or reply.median_ms is None or (reference and reply.ratio is None):
            raise BackendError(f"The network cannot be measured: {reply.failure or 'too few samples were undisturbed'}")
        return reply

    def ratio_anew(self, widths: Mapping[str, int], gone: Sequence[str] = ()) -> float:
        """The network's latency at these widths, without blocks, over the unpruned one's, in a process just begun.

        What a process gives a network, addresses for instance, stays for its life and can cost a percent.
        """
        return self.time_anew(self._write(widths, gone), LOOP_CONFIG)

    def time_anew(self, path: Path, config: MeasureConfig) -> float:
        """An ONNX file's latency over the unpruned network's, in a process that has just begun.

        Raises:
            BackendError: it cannot be measured.
        """
        with WorkerClient(self.client.backend, threads=self.client.threads, cache=self.client.cache) as client:
            reply = self._timed(client, path, config)
        assert reply.ratio is not None
        return reply.ratio

    def variant(self, widths: Mapping[str, int], gone: Sequence[str] = ()) -> onnx.ModelProto:
        """The network at these widths, without blocks, as it is timed here."""
        return self.variants.at(self.variants.widths_removal(widths), [self.blocks[name] for name in gone])

    def _write(self, widths: Mapping[str, int], gone: Sequence[str]) -> Path:
        path = Path(self._folder.name) / "pruned.onnx"
        write_onnx(self.variant(widths, gone), path)
        return path

    def ratio_at(self, widths: Mapping[str, int], gone: Sequence[str] = ()) -> float:
        """Measure the network at these widths, without blocks, with all its units, and let the table learn from it.

        Returns:
            Its latency over the unpruned network's.
        """
        path = self._write(widths, gone)
        timed = self.time(path, LOOP_CONFIG)
        reply = self.client.nodes(path, LOOP_CONFIG, runs=LOOP_RUNS, reference=self.unpruned)
        if reply.failure is not None or reply.reference_median_ms is None:
            log.warning("the units were not timed, and the table learns nothing from this trial: %s", reply.failure)
        elif self.predictor is not None:
            drift = reply.reference_median_ms / self.unpruned_ms()
            whole, rows = self._without(gone, *to_rows(self.network, self._owners, widths, reply, LOOP_CONFIG, drift))
            self._keep(whole, rows)
            self.table = self.table.extended(rows, [whole])
            self.predictor = self._predictor()
        assert timed.ratio is not None
        return timed.ratio

    def _without(
        self, gone: Sequence[str], whole: NetworkMeasurement, rows: Sequence[Measurement]
    ) -> tuple[NetworkMeasurement, Sequence[Measurement]]:
        """Leave out what belongs to blocks that are gone, with rows for what is left of it; it is another network."""
        if not gone:
            return whole, rows
        blocks = [self.blocks[name] for name in gone]
        left, forms = standing(self.network, blocks).rows(self.network.units, rows, dict(whole.widths))
        return replace(
            whole,
            network=without_blocks(self.network, blocks).hash,
            forms=tuple(forms.items()),
            units_ms=sum(row.median_ms or 0.0 for row in left),
        ), left

    def _keep(self, whole: NetworkMeasurement, rows: Sequence[Measurement]) -> None:
        """Write what was learned into the table's file, if it was measured under the same conditions."""
        if self.table.path is None:
            return
        if self._here is None:
            self._here = self.client.fingerprint()
        if self._here != self.table.fingerprint:
            return
        try:
            with TableFile(self.table.path) as file:
                file.add_network(self._here, whole, rows)
        except TableError as error:
            log.warning("what this trial taught stays out of the table: %s", error)

    def unpruned_ms(self) -> float:
        """The unpruned network's latency in the table's scale, in which the machine's present state has no part."""
        assert self.predictor is not None
        return self.predictor.latency_ms(self.network.widths)
