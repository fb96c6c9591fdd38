"""What came of a run: export, check and measure the shrunk network, and write the files of the run directory."""

import contextlib
import json
import platform
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

from torch import nn

from lut import Predictor
from lut.program import to_json
from profiler.blocks import Block
from profiler.cut import lost_positions, programs_after
from profiler.export import flat_arrays, largest_difference, lively, output_arrays, to_onnx, write_onnx
from profiler.network import Network
from profiler.progress import Event, Progress
from pruner.atomic import write_text
from pruner.bench import Bench
from pruner.deploy import CAREFULLY, MODEL
from pruner.plan import PrunePlan
from pruner.removal import dropped_by
from pruner.request import Check, PruneConfig, PruneRun
from pruner.rundir import save
from pruner.runstate import RunState
from pruner.surgery import shapes_left
from pruner.task import Task
from pruner.training import evaluate

STAGE = "export and check"
TOO_CLOSE = 0.02
"""Nearer to the budget than this one process cannot tell: then it is the median of three."""
OUTPUTS_MATCH = 1e-4
"""Largest relative difference of the exported file's outputs from the shrunk network's."""


@dataclass(frozen=True)
class Side:
    """One side of before and after: a network with what was measured of it."""

    part: nn.Module
    widths: Mapping[str, int]
    measured_ms: float
    noise: float | None
    metrics: Mapping[str, float]

    def to_json(
        self, network: Network, predictor: Predictor | None, runtime: str, gone: Collection[str] = ()
    ) -> dict[str, Any]:
        """The keys that other programs rely on, and more; memory as `runtime` lays it out, `gone` units aside."""
        return {
            "metric": next(iter(self.metrics.values()), None),
            "metrics": dict(self.metrics),
            "predicted_ms": predictor.latency_ms(self.widths, gone=gone) if predictor else None,
            "measured_ms": self.measured_ms,
            "noise": self.noise,
            "parameters": sum(parameter.numel() for parameter in self.part.parameters()),
            "macs": network.macs(self.widths),
            **network.memory(self.widths, runtime=runtime).to_json(),
            "memory_of": runtime,
        }


@dataclass(frozen=True)
class Pruned:
    """What the rounds left: the smaller model and the choices that each group keeps."""

    task: Task
    model: nn.Module
    network: Network
    removed: Mapping[str, Mapping[int, tuple[int, ...]]]
    programs: tuple[Mapping[str, Any], ...]
    kept: Mapping[str, tuple[int, ...]]
    shapes: Mapping[str, tuple[int, ...]]
    present: Network
    blocks: tuple[Block, ...] = ()

    @property
    def widths(self) -> dict[str, int]:
        """Channels kept."""
        return {name: len(kept) for name, kept in self.kept.items()}

    @property
    def units_gone(self) -> frozenset[str]:
        """Names of the units that went with blocks."""
        return frozenset(name for block in self.blocks for name in block.units)


def pruned_model(
    task: Task,
    original: nn.Module,
    small: nn.Module,
    network: Network,
    groups: Any,
    kept: Mapping[str, list[int]],
    present: Network,
    blocks: Sequence[Block],
) -> Pruned:
    """Put together what the rounds left.

    Args:
        task: of the run.
        original: the unpruned whole model.
        small: the pruned whole model.
        network: the analysis of the deployed part of the original.
        groups: its groups, named as in the whole model.
        kept: the choices that each group keeps.
        present: the network without the blocks that went.
        blocks: these, named as in the whole model.
    """
    gone = {
        name: [choice for choice in range(size) if choice not in set(kept[name])]
        for name, size in network.widths.items()
        if len(kept[name]) < size
    }
    removed = {
        name: {dimension: tuple(positions) for dimension, positions in dims.items()}
        for name, dims in lost_positions(groups, gone).items()
    }
    return Pruned(
        task=task,
        model=small,
        network=network,
        removed=removed,
        programs=tuple(to_json(program) for program in programs_after(groups, gone, blocks)),
        kept={name: tuple(choices) for name, choices in kept.items()},
        shapes=shapes_left(original, removed),
        present=present,
        blocks=tuple(blocks),
    )


def finish(
    pruned: Pruned,
    bench: Bench,
    before: Mapping[str, Any],
    limits: tuple[float | None, float | None],
    config: PruneConfig,
    state: RunState,
    solved: Sequence[Mapping[str, Any]],
    progress: Progress,
) -> PruneRun:
    """Write, check and measure what came out.

    Args:
        pruned: the smaller model.
        bench: measures it by turns with the unpruned network.
        before: `measured_ms`, `noise` and `metrics` of the unpruned network.
        limits: of latency in ms and of memory in bytes, None where there is none.
        config: of the run.
        state: its directory.
        solved: how the widths of each round were found.
        progress: told of each step.
    """
    task, network, out = pruned.task, pruned.network, state.folder
    budget_ms, memory = limits
    part, inputs = task.deployed(pruned.model), lively(task.inputs())
    progress(Event(STAGE, 0, 3))
    write_onnx(to_onnx(part, inputs), out / MODEL)
    reply = bench.client.outputs(out / MODEL, flat_arrays(inputs))
    difference = float("inf")
    if reply.failure is None:
        difference = largest_difference(list(reply.outputs.values()), output_arrays(part, inputs))
    progress(Event(STAGE, 1, 3))
    timed = bench.time(out / MODEL, CAREFULLY)
    assert timed.ratio is not None
    measured_ms = timed.ratio * float(before["measured_ms"])
    if budget_ms is not None and abs(measured_ms / budget_ms - 1) < TOO_CLOSE:
        again = [bench.time_anew(out / MODEL, CAREFULLY) for _ in range(2)]
        measured_ms = statistics.median([timed.ratio, *again]) * float(before["measured_ms"])
    metrics = evaluate(task, pruned.model) if task.evaluate else {}
    progress(Event(STAGE, 2, 3))
    runtime = config.memory_of or config.backend
    total = pruned.present.memory(pruned.widths, runtime=runtime).total_bytes
    detail = f"ONNX differs from PyTorch by {difference:.1g}, at most {OUTPUTS_MATCH:.0e}"
    checks = [Check("outputs", difference <= OUTPUTS_MATCH, detail)]
    if memory is not None:
        checks.insert(0, Check("memory", total <= memory, f"{total / 1e6:.4g} MB of {memory / 1e6:.4g} MB"))
    if budget_ms is not None:
        checks.insert(0, Check("latency", measured_ms <= budget_ms, f"{measured_ms:.4g} ms of {budget_ms:.4g} ms"))
    plan = _plan(pruned, bench, limits, config)
    full = Side(network.model, network.widths, before["measured_ms"], before["noise"], before["metrics"])
    small = Side(part, pruned.widths, measured_ms, timed.ratio_noise or timed.noise, metrics)
    result = {
        "budget_ms": budget_ms,
        "memory_budget_bytes": memory,
        "before": full.to_json(network, bench.predictor, runtime),
        "after": small.to_json(pruned.present, bench.predictor, runtime, pruned.units_gone),
        "metric": next(iter(before["metrics"]), None),
        "seed": config.seed,
        "task": {"spec": task.spec, "batch": task.batch} if task.spec else None,
        "versions": versions(),
        "fingerprint": bench.table.fingerprint.to_json(),
        "outputs_difference": difference,
        "solver": {"name": config.solver, "rounds": [dict(each) for each in solved]},
        "checks": [asdict(check) for check in checks],
        "plan": plan.to_json(),
    }
    save(pruned.model, plan, out)
    write_text(out / "result.json", json.dumps(result, indent=2) + "\n")
    state.finish()
    progress(Event(STAGE, 3, 3))
    return PruneRun(plan, pruned.model, result, tuple(checks), out)


def _plan(pruned: Pruned, bench: Bench, limits: tuple[float | None, float | None], config: PruneConfig) -> PrunePlan:
    prediction = None
    if bench.predictor:
        total = bench.predictor.predict(pruned.widths, gone=pruned.units_gone).total
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
        budget_ms=limits[0],
        memory_budget_bytes=int(limits[1]) if limits[1] is not None else None,
        prediction=prediction,
        fingerprint=bench.table.fingerprint.to_json(),
        importance=config.importance,
        normalize=config.normalize,
        solver=config.solver,
        seed=config.seed,
        frozen=config.freeze,
        created_with=versions(),
    )


def versions() -> dict[str, str]:
    """Versions of what took part."""
    found = {"python": platform.python_version()}
    for name in ("latprune", "torch", "onnx", "onnxscript", "onnxruntime", "openvino", "numpy"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
