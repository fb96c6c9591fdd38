"""Close the loop between prediction and measurement: solve, measure the network at those widths, correct, solve again.

What is promised is the measured latency. The network that is measured is the exported graph with its weights sliced,
timed by turns with the unpruned one, so that their ratio does not depend on the machine's drift; its units' times go
into the table that the next turn solves with.
"""

import logging
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lut import LatencyTable, Predictor, TableFile
from lut.errors import BackendError, BudgetError, MissingFamilyError, TableError
from lut.records import DeviceFingerprint, MeasureConfig, Measurement, NetworkMeasurement
from profiler.blocks import Block, without_blocks
from profiler.export import write_onnx
from profiler.inplace import Owners, to_rows
from profiler.progress import Event, Progress
from profiler.variants import Variants
from profiler.worker_client import TimeReply, WorkerClient
from pruner.cost import Latency
from pruner.posing import Answer, Question, solve
from pruner.solvers import Solver

log = logging.getLogger(__name__)

STAGE = "solve and measure"
AIM = 0.973
"""Of the budget: two processes measure one network one or two percent apart, and what was taken tends to be lucky."""
WITHIN = (0.961, 0.984)
"""Of the budget: a trial that was measured in here is taken, once other processes have confirmed it."""
TRIES = 16
CONFIRMED_BY = 2
"""Processes that confirm a trial: each starts the runtime anew."""
CONFIRMATIONS = 6
"""Trials that are tried so, at most."""
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
        answer: widths and the importance they lose.
        predicted: latency over the unpruned network's, by the table before this trial.
        ratios: the same, measured by turns, each in a process of its own.
    """

    answer: Answer
    predicted: float
    ratios: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """The geometric mean of what was measured."""
        return math.exp(sum(math.log(ratio) for ratio in self.ratios) / len(self.ratios))

    def used(self, share: float) -> float:
        """Measured latency over the budget, which is `share` of the unpruned latency."""
        return self.ratio / share


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
        reply = self.client.time(path, config, reference=self.unpruned if reference else None)
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
        with WorkerClient(self.client.backend, threads=self.client.threads) as client:
            reply = client.time(path, config, reference=self.unpruned)
        if reply.ratio is None:
            raise BackendError(f"The network cannot be measured: {reply.failure or 'too few samples were undisturbed'}")
        return reply.ratio

    def _write(self, widths: Mapping[str, int], gone: Sequence[str]) -> Path:
        path = Path(self._folder.name) / "pruned.onnx"
        blocks = [self.blocks[name] for name in gone]
        write_onnx(self.variants.at(self.variants.widths_removal(widths), blocks), path)
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
        """Leave out what belongs to blocks that are gone; without them it is another network."""
        if not gone:
            return whole, rows
        blocks = [self.blocks[name] for name in gone]
        lost = {name for block in blocks for name in block.units}
        left = [row for unit, row in zip(self.network.units, rows, strict=True) if unit.name not in lost]
        return replace(
            whole,
            network=without_blocks(self.network, blocks).hash,
            forms=tuple((name, form) for name, form in whole.forms if name not in lost),
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


def solve_measured(
    solver: Solver,
    bench: Bench,
    pose: Callable[[Predictor, float], Question],
    *,
    budget_ms: float,
    unpruned_ms: float,
    progress: Progress,
    gone: Sequence[str] = (),
) -> Trial:
    """Find widths whose *measured* latency is within the budget, and that use it.

    Args:
        solver: any.
        bench: measures the network at given widths and learns from it.
        pose: asks the question, given a predictor and a latency limit in the table's scale, which is its first budget.
        budget_ms: of one inference.
        unpruned_ms: the unpruned network's latency as measured now, the scale of the budget.
        progress: told after each turn.
        gone: names of blocks that went before.

    Returns:
        A trial within the budget that was measured in three processes: the first that also uses it, or else of all
        trials the one that loses least importance.

    Raises:
        BudgetError: no plan reaches the budget; the message says what the least is.
    """
    share = budget_ms / unpruned_ms
    aimed = AIM * share
    trials: list[Trial] = []
    question: Question | None = None
    confirmed = 0
    for turn in range(TRIES):
        predictor = bench.predictor
        assert predictor is not None
        full = bench.unpruned_ms()
        question = pose(predictor, aimed * full)
        answer = solve(question, solver)
        again = any((trial.answer.widths, trial.answer.blocks) == (answer.widths, answer.blocks) for trial in trials)
        if not answer.met and (again or any(trial.used(share) <= WITHIN[1] for trial in trials)):
            break
        predicted = answer.costs[0] / full
        if again:
            if trials[-1].used(share) <= WITHIN[1]:
                break
            aimed = min(aimed, predicted) * (1 - OVERSHOOT)
            continue
        without = (*gone, *answer.blocks)
        trial = Trial(answer, predicted, (bench.ratio_at(answer.widths, without),))
        note = f"predicted {predicted:.1%} of the unpruned latency, measured {trial.ratio:.1%}, budget {share:.1%}"
        progress(Event(STAGE, turn + 1, TRIES, note))
        if _within(trial, share) and confirmed < CONFIRMATIONS:
            trial = _confirmed(bench, trial, without)
            confirmed += 1
            anew = " and ".join(f"{ratio:.1%}" for ratio in trial.ratios[1:])
            progress(Event(STAGE, turn + 1, TRIES, f"in other processes {anew}"))
        trials.append(trial)
        if len(trial.ratios) > 1 and _within(trial, share):
            progress(Event(STAGE, TRIES, TRIES))
            return trial
        aimed = _next_aim(aimed, trial.ratio, AIM * share)
        if trial.used(share) > WITHIN[1]:
            aimed = min(aimed, predicted * (1 - OVERSHOOT))
    found = _best_confirmed(bench, trials, share, gone)
    if found is None:
        assert question is not None
        raise BudgetError(_least(question, bench, budget_ms, unpruned_ms, trials, gone))
    progress(Event(STAGE, TRIES, TRIES))
    return found


def _confirmed(bench: Bench, trial: Trial, without: Sequence[str]) -> Trial:
    """The trial with what other processes measure of it."""
    anew = [bench.ratio_anew(trial.answer.widths, without) for _ in range(CONFIRMED_BY)]
    return replace(trial, ratios=(*trial.ratios, *anew))


def _within(trial: Trial, share: float) -> bool:
    return WITHIN[0] <= trial.used(share) <= WITHIN[1]


def _best_confirmed(bench: Bench, trials: Sequence[Trial], share: float, gone: Sequence[str]) -> Trial | None:
    """Of the trials within the budget the one that loses least and stays within when another process measures it."""
    for trial in sorted(trials, key=lambda trial: (trial.answer.lost, trial.ratio)):
        if trial.used(share) > WITHIN[1]:
            continue
        checked = trial
        if len(trial.ratios) == 1:
            checked = _confirmed(bench, trial, (*gone, *trial.answer.blocks))
        if checked.used(share) <= WITHIN[1]:
            return checked
    return None


def _next_aim(aimed: float, ratio: float, aim: float) -> float:
    """Where to aim the next prediction so that the measurement comes out just under the aim.

    The table has learned from the last trial, so that only a part of its error is to be expected again; but solvers
    like plans that are predicted too fast, so that aiming at the same figure again would end over it for long.
    """
    change = math.pow(aim / ratio, TAKEN_OFF)
    if ratio > aim:
        return aimed * max(change, LEAST_CHANGE) * (1 - OVERSHOOT)
    return aimed * min(change, 1 / LEAST_CHANGE)


def _least(
    question: Question,
    bench: Bench,
    budget_ms: float,
    unpruned_ms: float,
    trials: Sequence[Trial],
    gone: Sequence[str],
) -> str:
    """Say what the least is that any plan reaches, measured."""
    narrowest = question.narrowest()
    for budget in question.budgets:
        cost = budget.cost
        if not isinstance(cost, Latency) and cost.at(narrowest) > budget.most:
            return (
                f"The budget of {budget.most:.4g} {cost.unit} ({cost.name}) cannot be met: "
                f"the least that any plan reaches is {cost.at(narrowest):.4g} {cost.unit}."
            )
    ratio = bench.ratio_at(narrowest, gone)
    least = min([ratio, *(trial.ratio for trial in trials)])
    return (
        f"The budget of {budget_ms:.4g} ms cannot be met: the least that was measured, with every group at its least "
        f"width, is {least * unpruned_ms:.4g} ms ({least:.0%} of the unpruned network's {unpruned_ms:.4g} ms). "
        "Allow more, or let groups get narrower (--min-width, --freeze)."
    )
