"""Deploy a pruned network: build an engine from a run's ONNX file, and measure what is deployed."""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx

from lut.errors import BackendError, LatpruneError, RunError
from lut.memory import Memory
from lut.records import MeasureConfig
from profiler.backends import MEMORY, get_backend
from profiler.backends.interface import BuildSettings
from profiler.graph_memory import graph_memory
from profiler.progress import Event, Progress, silent
from profiler.worker_client import WorkerClient
from pruner.atomic import write_text
from pruner.runstate import is_unfinished, register_file

MODEL = "model.onnx"
CAREFULLY = MeasureConfig(warmup_s=0.2, min_time_s=1.0, max_time_s=10.0, min_samples=60, noise_target=0.004)
"""How a figure that is reported is measured."""


@dataclass(frozen=True)
class ExportReport:
    """What was written for deployment.

    Attributes:
        path: of the engine or ONNX file.
        backend, precision, compute_capabilities: what it was made for.
        weights_bytes, activation_bytes, workspace_bytes: the compiler's ahead-of-time bound (workspace lies inside
            activation); None where the runtime tells none.
        file_bytes: size of the file.
        seconds: of the build.
        kernels: how many kernels the network became.
        warnings: the compiler's.
    """

    path: Path
    backend: str
    precision: str
    compute_capabilities: tuple[str, ...]
    weights_bytes: int | None
    activation_bytes: int | None
    workspace_bytes: int | None
    file_bytes: int
    seconds: float
    kernels: int
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON; the memory is named as the bound that it is."""
        data = asdict(self) | {"path": str(self.path)}
        bound = {key: data.pop(key) for key in ("weights_bytes", "activation_bytes", "workspace_bytes")}
        return data | {"ahead_of_time_bound": bound}


@dataclass(frozen=True)
class MeasureReport:
    """A file's measured latency, with its memory counted from the graph."""

    measured_ms: float
    noise: float
    samples: int
    backend: str
    memory: Memory
    discarded: int = 0
    reference_ms: float | None = None
    ratio: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The keys that other programs rely on, and more."""
        data = asdict(self)
        del data["memory"]
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


def export_run(
    run: Path,
    *,
    backend: str,
    precision: str = "fp32",
    compute_capabilities: tuple[str, ...] = ("8.6",),
    out: Path | None = None,
    progress: Progress = silent,
) -> ExportReport:
    """Write what is deployed of a finished run: an engine, or a copy of the ONNX file where the runtime runs ONNX.

    A side-car JSON of the same name tells what the file needs.

    Raises:
        RunError: the run is not finished.
        BackendError: the runtime is missing, or cannot build this network for that target.
        LatpruneError: a precision other than fp32.
    """
    source = run_model(run)
    if precision != "fp32":
        raise LatpruneError(f"Precision {precision} cannot be exported yet; fp32 can.")
    runtime = get_backend(backend)
    status = runtime.status()
    if not status.installed:
        raise BackendError(status.why_not or f"The backend {backend} is not installed.")
    builds = "builds" in status.abilities
    target = out or (
        run / f"model-{'-'.join(f'cc{c}' for c in compute_capabilities)}.engine" if builds else run / "deploy.onnx"
    )
    if not target.parent.is_dir():
        raise LatpruneError(f"There is no folder {target.parent} to write {target.name} into.")
    if not builds:
        shutil.copyfile(source, target)
        report = ExportReport(target, backend, precision, (), None, None, None, target.stat().st_size, 0.0, 0)
    else:
        progress(Event("build the engine", 0, 1, f"for compute capability {', '.join(compute_capabilities)}"))
        with WorkerClient(backend) as client:
            reply = client.build(source, target, BuildSettings(compute_capabilities))
        if reply.report is None:
            raise BackendError(f"{backend} cannot build the engine: {reply.failure}")
        built = reply.report
        progress(Event("build the engine", 1, 1))
        report = ExportReport(
            path=target,
            backend=backend,
            precision=precision,
            compute_capabilities=tuple(built.compute_capabilities),
            weights_bytes=built.weights_bytes,
            activation_bytes=built.activation_bytes,
            workspace_bytes=built.workspace_bytes,
            file_bytes=built.engine_bytes,
            seconds=built.seconds,
            kernels=len(built.kernels),
            warnings=tuple(built.warnings),
        )
    _write_sidecar(run, source, report, status.version)
    if target.parent.resolve() == run.resolve():
        for name in (target.name, f"{target.name}.json"):
            register_file(run, name)
    return report


def _write_sidecar(run: Path, source: Path, report: ExportReport, version: str | None) -> None:
    model = onnx.load(source, load_external_data=False)

    def describe(values: Any) -> list[dict[str, Any]]:
        return [
            {
                "name": value.name,
                "type": onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower(),
                "shape": [dim.dim_value for dim in value.type.tensor_type.shape.dim],
            }
            for value in values
        ]

    written = run / "result.json"
    result = json.loads(written.read_text()) if written.is_file() else {}
    after = result.get("after", {})
    data = report.to_json() | {
        "runtime_version": version,
        "inputs": describe(model.graph.input),
        "outputs": describe(model.graph.output),
        "predicted_ms": after.get("predicted_ms"),
        "measured_ms": after.get("measured_ms"),
        "measured_with": result.get("fingerprint"),
    }
    target = report.path.with_name(report.path.name + ".json")
    write_text(target, json.dumps(data, indent=2) + "\n")


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
    with WorkerClient(backend, threads=threads) as client:
        reply = client.time(path, config, reference=reference)
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
    )
