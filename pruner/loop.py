"""Close the loop between prediction and measurement: solve, measure the network at those widths, correct, solve again.

What is promised is the measured latency. The network that is measured is the exported graph with its weights sliced, timed
by turns with the unpruned one, so that their ratio does not depend on the machine's drift.
"""

import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lut.errors import BackendError, BudgetError
from lut.records import MeasureConfig
from profiler.export import write_onnx
from profiler.progress import Event, Progress
from profiler.variants import Variants
from profiler.worker_client import TimeReply, WorkerClient
from pruner.cost import Latency
from pruner.solvers import Limit, Problem, Solution, Solver

log = logging.getLogger(__name__)

STAGE = "solve and measure"
MARGIN = 0.02
"""How far under the budget to aim: what is measured twice differs by about this much."""
USED_AT_LEAST = 0.95
"""A plan that uses less of the budget than this is solved again while tries are left."""
TRIES = 6
LOOP_CONFIG = MeasureConfig(warmup_s=0.1, min_time_s=0.5, max_time_s=6.0, min_samples=24, noise_target=0.006)


@dataclass(frozen=True)
class Trial:
    """One turn of the loop.

    Attributes:
        solution: widths and the importance they lose.
        predicted_ms: by the table.
        measured_ms: the network at these widths, in the machine's state of the unpruned network's measurement.
        noise: of that measurement.
    """

    solution: Solution
    predicted_ms: float
    measured_ms: float
    noise: float


class Scales:
    """Times networks against the unpruned one, in one worker."""

    def __init__(self, variants: Variants, client: WorkerClient) -> None:
        self.variants = variants
        self.client = client
        self._folder = tempfile.TemporaryDirectory(prefix="latprune-")
        self.unpruned = Path(self._folder.name) / "unpruned.onnx"
        write_onnx(variants.at({}), self.unpruned)

    def close(self) -> None:
        """Remove the temporary files."""
        self._folder.cleanup()

    def time(self, path: Path, config: MeasureConfig, *, reference: bool = True) -> TimeReply:
        """Time an ONNX file, by turns with the unpruned network.

        Raises:
            BackendError: it cannot be measured.
        """
        reply = self.client.time(path, config, reference=self.unpruned if reference else None)
        if reply.failure is not None or reply.median_ms is None:
            raise BackendError(f"The network cannot be measured: {reply.failure}")
        return reply

    def at(self, widths: Mapping[str, int], config: MeasureConfig = LOOP_CONFIG) -> tuple[float, float]:
        """Ratio of the network at these widths to the unpruned one, and its noise."""
        path = Path(self._folder.name) / "pruned.onnx"
        write_onnx(self.variants.at(self.variants.widths_removal(widths)), path)
        reply = self.time(path, config)
        return reply.ratio or 1.0, reply.ratio_noise or reply.noise or 0.0


def solve_measured(
    solver: Solver,
    problem: Problem,
    scales: Scales,
    *,
    budget_ms: float,
    unpruned_ms: float,
    progress: Progress,
) -> Trial:
    """Find widths whose *measured* latency is within the budget, and that use it.

    Args:
        solver: any.
        problem: with every limit; the one on latency is tightened or loosened by what is measured.
        scales: measures the network at given widths.
        budget_ms: of one inference.
        unpruned_ms: the unpruned network's measured latency, the scale on which ratios are read.
        progress: told after each turn.

    Returns:
        The trial within the budget that loses least importance.

    Raises:
        BudgetError: no plan reaches the budget; the message says what the least is.
    """
    aim = budget_ms * (1 - MARGIN)
    limit = next(limit for limit in problem.limits if isinstance(limit.cost, Latency))
    target = aim
    within: list[Trial] = []
    trials: list[Trial] = []
    for turn in range(TRIES):
        solution = solver.solve(_with_latency(problem, limit.cost, target))
        if not solution.met:
            break
        if any(trial.solution.widths == solution.widths for trial in trials):
            break
        ratio, noise = scales.at(solution.widths)
        trial = Trial(solution, limit.cost.at(solution.widths), ratio * unpruned_ms, noise)
        trials.append(trial)
        note = f"predicted {trial.predicted_ms:.3g} ms, measured {trial.measured_ms:.3g} ms of {budget_ms:.3g} ms"
        progress(Event(STAGE, turn + 1, TRIES, note))
        if trial.measured_ms <= aim:
            within.append(trial)
            if trial.measured_ms >= USED_AT_LEAST * budget_ms:
                break
        target = _next_target(trials, aim)
    if not within:
        raise BudgetError(_least(problem, limit.cost, scales, budget_ms, unpruned_ms, trials))
    progress(Event(STAGE, TRIES, TRIES))
    return min(within, key=lambda trial: (trial.solution.lost, -trial.measured_ms))


def _with_latency(problem: Problem, cost: object, target: float) -> Problem:
    limits: Sequence[Limit] = [replace(item, most=target) if item.cost is cost else item for item in problem.limits]
    return replace(problem, limits=limits)


def _next_target(trials: Sequence[Trial], aim: float) -> float:
    """Where to aim the prediction so that the measurement comes out just under the aim.

    The tightest plans on either side of the aim bracket the answer; before there are both, the last ratio of
    measured to predicted is taken to hold.
    """
    over = [t for t in trials if t.measured_ms > aim]
    under = [t for t in trials if t.measured_ms <= aim]
    last = trials[-1]
    scaled = last.predicted_ms * aim / last.measured_ms
    if over and under:
        low = max(under, key=lambda t: t.predicted_ms)
        high = min(over, key=lambda t: t.predicted_ms)
        if low.predicted_ms < high.predicted_ms:
            share = (aim - low.measured_ms) / max(high.measured_ms - low.measured_ms, 1e-9)
            return low.predicted_ms + min(max(share, 0.1), 0.9) * (high.predicted_ms - low.predicted_ms)
    return scaled * (0.99 if last.measured_ms > aim else 1.0)


def _least(
    problem: Problem, cost: object, scales: Scales, budget_ms: float, unpruned_ms: float, trials: Sequence[Trial]
) -> str:
    """Say what the least is that any plan reaches, measured."""
    narrowest = problem.narrowest()
    ratio, _ = scales.at(narrowest)
    least = min([ratio * unpruned_ms, *(trial.measured_ms for trial in trials)])
    unlike = [limit for limit in problem.limits if limit.cost is not cost and limit.cost.at(narrowest) > limit.most]
    if unlike:
        other = unlike[0]
        return (
            f"The budget of {other.most:.4g} {other.cost.unit} ({other.cost.name}) cannot be met: "
            f"the least that any plan reaches is {other.cost.at(narrowest):.4g} {other.cost.unit}."
        )
    return (
        f"The budget of {budget_ms:.4g} ms cannot be met: the least that was measured with all groups at their least "
        f"widths is {least:.4g} ms ({least / unpruned_ms:.0%} of the unpruned network's {unpruned_ms:.4g} ms). "
        "Allow more, or allow narrower groups (--min-width, --freeze)."
    )
