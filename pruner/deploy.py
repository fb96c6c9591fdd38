"""Deploy a pruned network: build an engine from a run's ONNX file, and measure what is deployed."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from lut.errors import BackendError, LatpruneError, RunError
from lut.memory import Memory
from lut.records import MeasureConfig
from profiler.backends import MEMORY, get_backend
from profiler.backends.tensorrt_rtx import check_capability
from profiler.graph_memory import graph_memory
from profiler.precision.offered import Precision, Remainder, refuse_precision
from profiler.progress import Event, Progress, silent
from profiler.worker_client import WorkerClient
from pruner.atomic import write_text
from pruner.building import build, memory_at
from pruner.conversion import convert_run, run_task
from pruner.export_report import ExportReport
from pruner.free_batch import Batches, FreeBatch, check_batches, free_batch
from pruner.runstate import is_unfinished, register_file
from pruner.sidecar import describe, hash_file, needs
from pruner.staging import Staged, check_place, staging
from pruner.task import Task

MODEL = "model.onnx"
TARGETS: Mapping[str, Callable[[str], None]] = {"tensorrt-rtx": check_capability}
"""What refuses a compute capability that a compiler cannot build for, before anything else is done."""
CAREFULLY = MeasureConfig(warmup_s=0.2, min_time_s=1.0, max_time_s=10.0, min_samples=60, noise_target=0.004)
"""How a figure that is reported is measured."""
BUILDS = 3
"""Engines that a reported figure of a compiling runtime is taken from: they differ from build to build by 2 to 4 %."""


ON_GPUS = ("p99_ms", "builds_ms", "between_builds", "command", "remarks")


@dataclass(frozen=True)
class MeasureReport:
    """A file's measured latency, with its memory counted from the graph.

    Attributes:
        measured_ms, noise, samples, backend, memory, discarded, reference_ms, ratio: as `TimeReply` has them.
        p99_ms, builds_ms, between_builds, command, remarks: the same; told where a GPU times itself.
    """

    measured_ms: float
    noise: float
    samples: int
    backend: str
    memory: Memory
    discarded: int = 0
    reference_ms: float | None = None
    ratio: float | None = None
    p99_ms: float | None = None
    builds_ms: tuple[float, ...] = ()
    between_builds: float | None = None
    command: str | None = None
    remarks: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The keys that other programs rely on, and more."""
        data = asdict(self)
        del data["memory"]
        for name in ON_GPUS:
            if data[name] in (None, ()):
                del data[name]
        return data | self.memory.to_json()


def run_model(run: Path) -> Path:
    """The ONNX file of a finished run.

    Raises:
        RunError: it is no run, or an unfinished one.
    """
    if not run.is_dir():
        raise RunError(f"There is no run {run}.")
    path = run / MODEL
    if is_unfinished(run):
        raise RunError(f"{run} holds no finished run. Finish it: the same latprune prune command goes on.")
    if not path.is_file():
        raise RunError(
            f"{run} holds no finished run: there is no {MODEL} in it. "
            "After your own training, pruner.save(model, plan, folder, inputs=example_inputs()) writes one."
        )
    return path


@dataclass(frozen=True)
class ExportConfig:
    """How to deploy a run.

    Attributes:
        precision: "fp32", "fp16" or "int8".
        remainder: of int8, what runs where nothing is quantised; None for fp32, or fp16 where a target needs it.
        compute_capabilities: that an engine is built for.
        task: whose batches and `evaluate` are used; None for the one that the run tells.
        accuracy: whether the task's `evaluate` judges the converted file.
        batches: the least, the best and the most that one file runs at; None for the batch that the run has.
    """

    precision: Precision = "fp32"
    remainder: Remainder | None = None
    compute_capabilities: tuple[str, ...] = ("8.6",)
    task: Task | None = None
    accuracy: bool = True
    batches: Batches | None = None


def export_run(
    run: Path,
    *,
    backend: str,
    config: ExportConfig | None = None,
    out: Path | None = None,
    progress: Progress = silent,
) -> ExportReport:
    """Write what is deployed of a finished run: an engine, or an ONNX file where the runtime runs ONNX.

    Beside it stand a JSON of the same name that tells what the file needs, and the ONNX file that an engine was built
    from, where that is not the run's own. All are written, or none.

    Raises:
        RunError: the run is not finished, or the files cannot be written.
        BackendError: the runtime is missing, or cannot build this network for that target.
        LatpruneError: the network cannot be converted to that precision.
    """
    config = config or ExportConfig()
    refuse_precision(config.precision)
    source = run_model(run)
    runtime = get_backend(backend)
    status = runtime.status()
    if not status.installed:
        raise BackendError(status.why_not or f"The backend {backend} is not installed.")
    builds = "builds" in status.abilities
    for capability in config.compute_capabilities if backend in TARGETS else ():
        TARGETS[backend](capability)
    target = out or run / _file_name(config, builds)
    check_place(target, run, engine=builds)
    plain = onnx.load(source)
    free, task = None, config.task
    if config.batches is not None:
        check_batches(config.batches)
        task = run_task(run, task)
        free = free_batch(run, task, config.batches, progress=progress)
    conversion = convert_run(
        run,
        plain if free is None else free.model,
        config.precision,
        remainder=config.remainder,
        compute_capabilities=config.compute_capabilities if builds else (),
        task=task,
        batches=config.batches,
        accuracy=config.accuracy,
        optimised=backend == "onnxruntime",
        progress=progress,
    )
    try:
        with staging(target) as staged:
            changed = conversion.converted.model != plain
            file = staged.write_onnx(conversion.converted.model) if changed else source
            report = ExportReport(target, backend, conversion)
            if builds:
                report = _built(staged, file, report, config, free, given=str(run), progress=progress)
                report = replace(report, onnx=staged.beside if changed else source)
            else:
                shutil.copyfile(file, staged.file)
            report = replace(
                report,
                file_bytes=staged.file.stat().st_size,
                sidecar=dict(report.sidecar)
                | describe(run, conversion.converted.model, conversion, free)
                | {
                    "runtime_version": status.version,
                    "needs": needs(backend, status.version, report.compute_capabilities),
                }
                | {"sha256": {"file": hash_file(staged.file), "onnx": hash_file(file)}},
            )
            write_text(staged.json, json.dumps(report.to_json(), indent=2) + "\n")
            names = staged.put()
    except OSError as error:
        raise RunError(f"{target} cannot be written: {error.strerror or error}. Nothing was left there.") from error
    if target.parent.resolve() == run.resolve():
        for name in names:
            register_file(run, name)
    return report


def _file_name(config: ExportConfig, builds: bool) -> str:
    ending = "" if config.precision == "fp32" else f"-{config.precision}"
    if config.batches is not None:
        ending += f"-batch{'-'.join(map(str, config.batches))}"
    if not builds:
        return f"deploy{ending}.onnx"
    return f"model-{'-'.join(f'cc{one}' for one in config.compute_capabilities)}{ending}.engine"


def _built(
    staged: Staged,
    file: Path,
    report: ExportReport,
    config: ExportConfig,
    free: FreeBatch | None,
    *,
    given: str,
    progress: Progress,
) -> ExportReport:
    targets = config.compute_capabilities
    with WorkerClient(report.backend, progress=progress) as client:
        built = build(client, file, staged.file, targets, given=given, batches=config.batches, progress=progress)
        bounds: dict[str, Any] = {}
        if free is not None:
            ahead = report.backend in TARGETS
            bounds["memory_by_batch"] = memory_at(client, report.conversion.converted.model, free, built, again=ahead)
    return replace(
        report,
        compute_capabilities=tuple(built.compute_capabilities),
        weights_bytes=built.weights_bytes,
        activation_bytes=built.activation_bytes,
        workspace_bytes=built.workspace_bytes,
        seconds=built.seconds,
        kernels=len(built.kernels),
        warnings=tuple(built.warnings),
        sidecar=bounds,
    )


def measure(
    target: Path,
    *,
    backend: str = "onnxruntime",
    threads: int = 1,
    reference: Path | None = None,
    config: MeasureConfig = CAREFULLY,
    progress: Progress = silent,
) -> MeasureReport:
    """Measure a run's network, an ONNX file, or (on a GPU machine) an engine.

    Args:
        target: `RUN/`, `FILE.onnx` or `FILE.engine`.
        backend: the runtime that runs it.
        threads: of a CPU runtime.
        reference: an ONNX file that is timed by turns, so that their ratio does not depend on the machine's drift.
        config: how carefully.
        progress: told before and after.

    Raises:
        LatpruneError: there is no such file, or it cannot be read or run here.
    """
    path = run_model(target) if target.is_dir() else target
    if not path.is_file():
        raise LatpruneError(f"There is no file {path}.")
    if path.suffix != ".onnx":
        raise BackendError(
            f"{path.name} is an engine: measuring it needs the GPU it was built for, and none can be used here. "
            "The ONNX file of the same run can be measured with --backend onnxruntime."
        )
    try:
        memory = graph_memory(onnx.load(path), MEMORY.get(backend))
    except LatpruneError:
        raise
    except Exception as error:
        raise LatpruneError(f"{path} is not an ONNX file that can be read ({type(error).__name__}).") from error
    progress(Event("measure", 0, 1))
    with WorkerClient(backend, threads=threads, progress=progress) as client:
        reply = client.time(path, config, reference=reference, builds=BUILDS)
    if reply.failure is not None or reply.median_ms is None or reply.noise is None:
        raise BackendError(f"{path} cannot be measured with {backend}: {reply.failure}")
    progress(Event("measure", 1, 1))
    return MeasureReport(
        measured_ms=reply.median_ms,
        noise=reply.noise,
        samples=len(reply.samples_ms),
        backend=backend,
        memory=memory,
        discarded=reply.discarded,
        reference_ms=reply.reference_median_ms,
        ratio=reply.ratio,
        p99_ms=reply.p99_ms,
        builds_ms=reply.builds_ms,
        between_builds=reply.between_builds,
        command=reply.command,
        remarks=reply.remarks,
    )
