"""Have a compiler build an engine of a file, and say for which batch the memory is that it announces."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from lut.errors import BackendError
from profiler.ahead import workspace_in
from profiler.backends import MEMORY
from profiler.backends.interface import BuildReport, BuildSettings
from profiler.free_batch import at_batch
from profiler.progress import Event, Progress, silent
from profiler.worker_client import WorkerClient
from pruner.free_batch import Batches, FreeBatch

STAGE = "build the engine"
SIZES = ("weights_bytes", "activation_bytes", "workspace_bytes")


def build(
    client: WorkerClient,
    file: Path,
    out: Path,
    compute_capabilities: tuple[str, ...],
    *,
    given: str,
    batches: Batches | None = None,
    progress: Progress = silent,
) -> BuildReport:
    """Build an engine in the worker.

    Args:
        client: of the runtime.
        file: the ONNX file, which may be a temporary one.
        out: the engine.
        compute_capabilities: to build for.
        given: what messages call the network.
        batches: the least, the best and the most of a free batch.
        progress: told before and after.

    Returns:
        The compiler's report; its workspace is told apart by the runtime's rules, where they are known.

    Raises:
        BackendError: it cannot be built.
    """
    progress(Event(STAGE, 0, 1, f"for compute capability {', '.join(compute_capabilities)}"))
    reply = client.build(file, out, BuildSettings(compute_capabilities, batches=batches, given=given))
    if reply.report is None:
        raise BackendError(f"{client.backend} cannot build the engine: {reply.failure}")
    progress(Event(STAGE, 1, 1))
    return _told_apart(client.backend, reply.report, onnx.load(file))


def _told_apart(backend: str, report: BuildReport, model: onnx.ModelProto) -> BuildReport:
    rules = MEMORY.get(backend)
    if rules is None or report.activation_bytes is None:
        return report
    return replace(report, workspace_bytes=workspace_in(rules, report.activation_bytes, model))


def memory_at(
    client: WorkerClient, model: onnx.ModelProto, free: FreeBatch, built: BuildReport, *, again: bool
) -> dict[str, Any]:
    """The compiler's ahead-of-time bounds of an engine with a free batch, each with the batch that it is for.

    The compiler announces what the most takes. What the best takes is that of an engine of this batch alone, compiled
    for this figure and thrown away.

    Args:
        client: that built it.
        model: that it was built from.
        free: its batches.
        built: what the compiler announced.
        again: whether to compile once more; where that takes long, or a GPU, the best has no figure.
    """
    found: dict[str, Any] = {"max": {name: getattr(built, name) for name in SIZES}, "opt": None, "opt_because": None}
    if not again:
        return found | {"opt_because": "it was not compiled apart, which takes this compiler as long as the engine"}
    best = at_batch(model, free.batches[1])
    with tempfile.TemporaryDirectory(prefix="latprune-") as folder:
        file = Path(folder, "opt.onnx")
        file.write_bytes(best.SerializeToString())
        settings = BuildSettings(built.compute_capabilities, given=f"the network at a batch of {free.batches[1]}")
        reply = client.build(file, Path(folder, "opt.engine"), settings)
    if reply.report is None:
        return found | {"opt_because": f"an engine of that batch alone cannot be built: {reply.failure}"}
    return found | {
        "opt": {name: getattr(_told_apart(client.backend, reply.report, best), name) for name in SIZES},
        "opt_because": "of an engine of that batch alone",
    }
