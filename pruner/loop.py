"""Close the loop between prediction and measurement: solve, measure the network at those widths, correct, solve again.

What is promised is the measured latency. The network that is measured is the exported graph with its weights sliced,
timed by turns with the unpruned one, so that their ratio does not depend on the machine's drift; its units' times go
into the table that the next turn solves with.
"""

import logging
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lut import LatencyTable, Predictor, TableFile
from lut.errors import BackendError, BudgetError, MissingFamilyError, TableError
from lut.records import DeviceFingerprint, MeasureConfig, Measurement, NetworkMeasurement
from profiler.export import write_onnx
from profiler.inplace import Owners, to_rows
from profiler.progress import Event, Progress
from profiler.variants import Variants
from profiler.worker_client import TimeReply, WorkerClient
from pruner.cost import Latency
from pruner.solvers import Problem, Solution, Solver

log = logging.getLogger(__name__)

STAGE = "solve and measure"
MARGIN = 0.03
"""How far under the budget to aim: what is measured twice differs by about this much."""
USED_AT_LEAST = 0.96
"""A plan that uses less of the aim than this is solved again while tries are left."""
TRIES = 16
ENOUGH = 3
"""Trials within the budget after which no closer one is sought."""
TAKEN_OFF = 0.6
"""Which power of a trial's error corrects the next aim."""
LEAST_CHANGE = 0.75
OVERSHOOT = 0.01
"""By how much more a trial over the aim tightens the next."""
LOOP_RUNS = 24
LOOP_CONFIG = MeasureConfig(warmup_s=0.1, min_time_s=0.5, max_time_s=5.0, min_samples=40, noise_target=0.006)


@dataclass(frozen=True)
class Trial:
    """One turn of the loop.

    Attributes:
        solution: widths and the importance they lose.
        predicted: latency over the unpruned network's, by the table before this trial.
        ratio: the same, measured by turns.
        noise: of that measurement.
    """

    solution: Solution
    predicted: float
    ratio: float
    noise: float


class Bench:
    """Times networks against the unpruned one, in one worker, and lets the table learn from each.

    Attributes:
        table: the one that was opened, with the rows of every network measured here.
        predictor: from that table.
    """

    def __init__(
        self, variants: Variants, client: WorkerClient, table: LatencyTable, *, latencies: bool = True
    ) -> None:
        """Write the unpruned network; without `latencies` a table that lacks some merely predicts nothing."""
        self.variants = variants
        self.network = variants.network
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
        reply = self.client.time(path, config, reference=self.unpruned if reference else None)
        if reply.failure is not None or reply.median_ms is None or (reference and reply.ratio is None):
            raise BackendError(f"The network cannot be measured: {reply.failure or 'too few samples were undisturbed'}")
        return reply

    def ratio_at(self, widths: Mapping[str, int]) -> tuple[float, float]:
        """Measure the network at these widths with all its units, and let the table learn from it.

        Returns:
            Its latency over the unpruned network's, and the noise of that.
        """
        path = Path(self._folder.name) / "pruned.onnx"
        write_onnx(self.variants.at(self.variants.widths_removal(widths)), path)
        timed = self.time(path, LOOP_CONFIG)
        reply = self.client.nodes(path, LOOP_CONFIG, runs=LOOP_RUNS, reference=self.unpruned)
        if reply.failure is not None or reply.reference_median_ms is None:
            log.warning("the units were not timed, and the table learns nothing from this trial: %s", reply.failure)
        elif self.predictor is not None:
            drift = reply.reference_median_ms / self.unpruned_ms()
            whole, rows = to_rows(self.network, self._owners, widths, reply, LOOP_CONFIG, drift)
            self._keep(whole, rows)
            self.table = self.table.extended(rows, [whole])
            self.predictor = self._predictor()
        assert timed.ratio is not None
        return timed.ratio, timed.ratio_noise or 0.0

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


def solve_measured(
    solver: Solver,
    bench: Bench,
    problem: Callable[[Predictor, float], Problem],
    *,
    budget_ms: float,
    unpruned_ms: float,
    progress: Progress,
) -> Trial:
    """Find widths whose *measured* latency is within the budget, and that use it.

    Args:
        solver: any.
        bench: measures the network at given widths and learns from it.
        problem: poses the problem from a predictor and a latency limit in the table's scale.
        budget_ms: of one inference.
        unpruned_ms: the unpruned network's latency as measured now, the scale of the budget.
        progress: told after each turn.

    Returns:
        The trial within the budget that loses least importance.

    Raises:
        BudgetError: no plan reaches the budget; the message says what the least is.
    """
    aim = (1 - MARGIN) * budget_ms / unpruned_ms
    aimed = aim
    trials: list[Trial] = []
    posed = None
    for turn in range(TRIES):
        predictor = bench.predictor
        assert predictor is not None
        full = bench.unpruned_ms()
        posed = problem(predictor, aimed * full)
        solution = solver.solve(posed)
        again = any(trial.solution.widths == solution.widths for trial in trials)
        if not solution.met and (again or any(trial.ratio <= aim for trial in trials)):
            break
        predicted = predictor.latency_ms(solution.widths) / full
        if again:
            if trials[-1].ratio <= aim:
                break
            aimed = min(aimed, predicted) * (1 - OVERSHOOT)
            continue
        ratio, noise = bench.ratio_at(solution.widths)
        trials.append(Trial(solution, predicted, ratio, noise))
        share = budget_ms / unpruned_ms
        note = f"predicted {predicted:.1%} of the unpruned latency, measured {ratio:.1%}, budget {share:.1%}"
        progress(Event(STAGE, turn + 1, TRIES, note))
        if USED_AT_LEAST * aim <= ratio <= aim:
            break
        if sum(trial.ratio <= aim for trial in trials) >= ENOUGH:
            break
        aimed = _next_aim(aimed, ratio, aim)
        if ratio > aim:
            aimed = min(aimed, predicted * (1 - OVERSHOOT))
    within = [trial for trial in trials if trial.ratio <= aim]
    if not within:
        assert posed is not None
        raise BudgetError(_least(posed, bench, budget_ms, unpruned_ms, trials))
    progress(Event(STAGE, TRIES, TRIES))
    return min(within, key=lambda trial: (trial.solution.lost, trial.ratio))


def _next_aim(aimed: float, ratio: float, aim: float) -> float:
    """Where to aim the next prediction so that the measurement comes out just under the aim.

    The table has learned from the last trial, so that only a part of its error is to be expected again; but solvers
    like plans that are predicted too fast, so that aiming at the same figure again would end over it for long.
    """
    change = math.pow(aim / ratio, TAKEN_OFF)
    if ratio > aim:
        return aimed * max(change, LEAST_CHANGE) * (1 - OVERSHOOT)
    return aimed * min(change, 1 / LEAST_CHANGE)


def _least(problem: Problem, bench: Bench, budget_ms: float, unpruned_ms: float, trials: Sequence[Trial]) -> str:
    """Say what the least is that any plan reaches, measured."""
    narrowest = problem.narrowest()
    for limit in problem.limits:
        if not isinstance(limit.cost, Latency) and limit.cost.at(narrowest) > limit.most:
            return (
                f"The budget of {limit.most:.4g} {limit.cost.unit} ({limit.cost.name}) cannot be met: "
                f"the least that any plan reaches is {limit.cost.at(narrowest):.4g} {limit.cost.unit}."
            )
    ratio, _ = bench.ratio_at(narrowest)
    least = min([ratio, *(trial.ratio for trial in trials)])
    return (
        f"The budget of {budget_ms:.4g} ms cannot be met: the least that was measured, with every group at its least "
        f"width, is {least * unpruned_ms:.4g} ms ({least:.0%} of the unpruned network's {unpruned_ms:.4g} ms). "
        "Allow more, or let groups get narrower (--min-width, --freeze)."
    )
