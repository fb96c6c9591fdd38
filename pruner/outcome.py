"""What came of a run: export, check and measure the shrunk network, and write the files of the run directory."""

import json
import logging
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from lut.memory import Liveness, MemoryBound
from profiler.export import OUTPUTS_MATCH, flat_arrays, largest_difference, lively, output_arrays, to_onnx, write_onnx
from profiler.graph_form import read_form
from profiler.network import Network
from profiler.progress import Event, Progress
from pruner.atomic import write_text
from pruner.bench import Bench
from pruner.budget import Limits
from pruner.deploy import CAREFULLY, MODEL
from pruner.memory_bench import MemoryBench, memory_target
from pruner.plan import PrunePlan
from pruner.pruned import Pruned, left_by_blocks
from pruner.removal import dropped_by
from pruner.request import Check, PruneConfig, PruneRun
from pruner.rundir import save
from pruner.runstate import RunState
from pruner.sides import BOUND, Side
from pruner.training import evaluate
from pruner.versions import versions

log = logging.getLogger(__name__)

STAGE = "export and check"
TOO_CLOSE = 0.02
"""Nearer to the budget than this one process cannot tell: then it is the median of three."""


@dataclass(frozen=True)
class Ahead:
    """How the memory of what is deployed is known.

    Attributes:
        memory: what compiles for the target, or None where memory is counted.
        why_not: why it is only counted.
        liveness: of the network that is left, by all that is known of the target.
    """

    memory: MemoryBench | None = None
    why_not: str | None = None
    liveness: Liveness | None = None


def finish(
    pruned: Pruned,
    bench: Bench,
    before: Mapping[str, Any],
    limits: Limits,
    config: PruneConfig,
    state: RunState,
    solved: Sequence[Mapping[str, Any]],
    progress: Progress,
    *,
    ahead: Ahead,
) -> PruneRun:
    """Write, check and measure what came out; against a table made ahead of time nothing is measured.

    Args:
        pruned: the smaller model.
        bench: measures it by turns with the unpruned network.
        before: `measured_ms`, `noise` and `metrics` of the unpruned network.
        limits: of the whole run.
        config: of the run.
        state: its directory.
        solved: how the widths of each round were found.
        progress: told of each step.
        ahead: how the memory is known.
    """
    task, network, out = pruned.task, pruned.network, state.folder
    budget_ms, memory = limits.ms, limits.memory_bytes
    part, inputs = task.deployed(pruned.model), lively(task.inputs())
    progress(Event(STAGE, 0, 3))
    deployed = to_onnx(part, inputs)
    as_timed = read_form(deployed) == read_form(bench.variant(pruned.widths, [block.name for block in pruned.blocks]))
    if not as_timed:
        log.warning("the exported network is not written as the one that was timed in the loop; its own time decides")
    write_onnx(deployed, out / MODEL)
    difference, outputs = outputs_check(bench, out / MODEL, part, inputs)
    progress(Event(STAGE, 1, 3))
    measured_ms, noise = _measured(bench, out / MODEL, before, budget_ms)
    metrics = evaluate(task, pruned.model) if task.evaluate else {}
    progress(Event(STAGE, 2, 3))
    memory_of = memory_target(config, bench.table.fingerprint)
    bounds = _bounds(ahead, network, out / MODEL)
    checks = [outputs]
    if memory is not None:
        checks.insert(0, _memory_check(bounds[1], ahead, pruned, memory_of, memory))
    if budget_ms is not None and measured_ms is not None:
        checks.insert(0, Check("latency", measured_ms <= budget_ms, f"{measured_ms:.4g} ms of {budget_ms:.4g} ms"))
    plan = _plan(pruned, bench, limits, config)
    stood = pruned.stood(bench.predictor)[0]
    full = Side(network.model, network.widths, before["measured_ms"], before["noise"], before["metrics"])
    small = Side(part, pruned.widths, measured_ms, noise, metrics)
    result = {
        "budget_ms": budget_ms,
        "memory_budget_bytes": memory,
        "before": full.to_json(network, bench.predictor, memory_of, bound=bounds[0]),
        "after": small.to_json(pruned.present, bench.predictor, memory_of, stood, bound=bounds[1]),
        "left_by_blocks": left_by_blocks(pruned, bench.predictor),
        "memory_from": _memory_from(ahead),
        "metric": next(iter(before["metrics"]), None),
        "seed": config.seed,
        "task": {"spec": task.spec, "batch": task.batch} if task.spec else None,
        "versions": versions(),
        "fingerprint": bench.table.fingerprint.to_json(),
        "outputs_difference": difference,
        "exported_as_timed": as_timed,
        "solver": {"name": config.solver, "rounds": [dict(each) for each in solved]},
        "checks": [asdict(check) for check in checks],
        "plan": plan.to_json(),
    }
    save(pruned.model, plan, out)
    write_text(out / "result.json", json.dumps(result, indent=2, allow_nan=False) + "\n")
    state.finish()
    progress(Event(STAGE, 3, 3))
    return PruneRun(plan, pruned.model, result, tuple(checks), out)


def outputs_check(bench: Bench, path: Path, part: nn.Module, inputs: Sequence[Any]) -> tuple[float | None, Check]:
    """How far the file's outputs are from the network's, relatively; None where there is no finite figure."""
    reply = bench.client.outputs(path, flat_arrays(inputs))
    if reply.failure is not None:
        return None, Check("outputs", False, f"the exported network does not run: {reply.failure}")
    expected = output_arrays(part, inputs)
    difference = largest_difference(list(reply.outputs.values()), expected)
    if math.isfinite(difference):
        detail = f"ONNX differs from PyTorch by {difference:.1g}, at most {OUTPUTS_MATCH:.0e}"
        return difference, Check("outputs", difference <= OUTPUTS_MATCH, detail)
    if not all(np.isfinite(array).all() for array in expected):
        return None, Check("outputs", False, "PyTorch's own outputs are not finite, so that nothing can be compared")
    return None, Check("outputs", False, "ONNX gives other outputs than PyTorch: not finite, or of other shapes")


def _measured(
    bench: Bench, path: Path, before: Mapping[str, Any], budget_ms: float | None
) -> tuple[float | None, float | None]:
    """The file's latency in the scale of the unpruned network's, with its noise; None where nothing is measured."""
    if bench.table.fingerprint.ahead_of_time:
        return None, None
    timed = bench.time(path, CAREFULLY)
    assert timed.ratio is not None
    measured_ms = timed.ratio * float(before["measured_ms"])
    if budget_ms is not None and abs(measured_ms / budget_ms - 1) < TOO_CLOSE:
        again = [bench.time_anew(path, CAREFULLY) for _ in range(2)]
        measured_ms = statistics.median([timed.ratio, *again]) * float(before["measured_ms"])
    return measured_ms, timed.ratio_noise or timed.noise


def _bounds(ahead: Ahead, network: Network, path: Path) -> tuple[MemoryBound | None, MemoryBound | None]:
    """What a compiler announces of the unpruned network and of the file that is deployed; None without one."""
    if ahead.memory is None:
        return None, None
    return ahead.memory.bound(network.widths), ahead.memory.bound_of_file(path)


def _memory_check(
    bound: MemoryBound | None, ahead: Ahead, pruned: Pruned, memory_of: tuple[str, str], most: float
) -> Check:
    """Whether the memory budget is kept: by the compiler's figure for what is deployed, or as it is counted."""
    if bound is not None:
        assert ahead.memory is not None
        detail = (
            f"{BOUND} {bound.total_bytes / 1e6:.4g} MB of {most / 1e6:.4g} MB ({ahead.memory.target}); inputs and "
            f"outputs {bound.io_bytes / 1e6:.4g} MB apart"
        )
        return Check("memory", bound.total_bytes <= most, detail)
    liveness = ahead.liveness or pruned.present.liveness(*memory_of)
    total = liveness.at(pruned.widths).total_bytes
    return Check("memory", total <= most, f"{total / 1e6:.4g} MB of {most / 1e6:.4g} MB, as counted")


def _memory_from(ahead: Ahead) -> dict[str, Any]:
    """How the memory is known, for `result.json`."""
    if ahead.memory is None:
        return {"is": "counted", "because": ahead.why_not}
    return {"is": BOUND, "fingerprint": ahead.memory.fingerprint.to_json(), "compiled": ahead.memory.compiled}


def _plan(pruned: Pruned, bench: Bench, limits: Limits, config: PruneConfig) -> PrunePlan:
    prediction = None
    if bench.predictor:
        stood = pruned.stood(bench.predictor)[0]
        total = bench.predictor.predict(pruned.widths, gone=stood.gone, left=stood.left).total
        prediction = {"predicted_ms": total.ms, "low_ms": total.low_ms, "high_ms": total.high_ms}
    return PrunePlan(
        network_hash=pruned.network.hash,
        kept=pruned.kept,
        sizes=dict(pruned.network.widths),
        removed=pruned.removed,
        programs=pruned.programs,
        removed_blocks=tuple(block.name for block in pruned.blocks),
        dropped=dropped_by(pruned.blocks),
        shapes=pruned.shapes,
        budget_ms=limits.ms,
        memory_budget_bytes=int(limits.memory_bytes) if limits.memory_bytes is not None else None,
        prediction=prediction,
        fingerprint=bench.table.fingerprint.to_json(),
        importance=config.importance,
        normalize=config.normalize,
        solver=config.solver,
        seed=config.seed,
        frozen=config.freeze,
        created_with=versions(),
    )
