"""Measure an engine as it is deployed: is it whole, does it fit this GPU, is it as fast and as right as promised."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from lut.errors import BackendError, LatpruneError
from lut.records import MeasureConfig
from profiler.backends.inputs import random_inputs
from profiler.backends.trt_validity import looks_like_engine
from profiler.engine_check import check_engine
from profiler.export import largest_difference
from profiler.nvml import GpuFacts, find_gpu
from profiler.progress import Event, Progress, silent
from profiler.worker_client import WorkerClient
from pruner.deploy import CAREFULLY, MODEL
from pruner.sidecar import hash_file

BUILDERS = ("tensorrt-rtx", "tensorrt")
TOLERANCES = {"fp32": 1e-3, "tf32": 5e-3, "fp16": 2e-2, "bf16": 5e-2, "int8": 0.2}
"""How far outputs may lie from the same network's in ONNX Runtime on the CPU, over the largest value of that output."""
NO_PROMISE = "no side-car: nothing is known of what was promised"


@dataclass(frozen=True)
class SideCar:
    """What stands beside an engine, as far as it matters here; None for what does not."""

    backend: str | None = None
    runtime_version: str | None = None
    compute_capabilities: tuple[str, ...] = ()
    precision: str | None = None
    predicted_ms: float | None = None
    predicted_for: str | None = None
    sha256: str | None = None
    onnx: str | None = None
    batch: int | None = None
    onnx_sha256: str | None = None


@dataclass(frozen=True)
class EngineReport:
    """An engine that ran.

    Attributes:
        measured_ms, noise, samples, backend, discarded: as of every network that is measured.
        p99_ms: the 99th percentile, where there are samples enough.
        predicted_ms: what its side-car promised, or None.
        difference: of its outputs from the ONNX file's, over the largest value of each output; None without that file.
        tolerance: that its precision has.
        command: NVIDIA's own, which reproduces the median.
        remarks: what could not be compared, and why.
    """

    measured_ms: float
    noise: float
    samples: int
    backend: str
    discarded: int = 0
    p99_ms: float | None = None
    predicted_ms: float | None = None
    difference: float | None = None
    tolerance: float | None = None
    command: str | None = None
    remarks: tuple[str, ...] = ()

    @property
    def is_right(self) -> bool:
        """Whether the outputs are the ONNX file's, or were not compared."""
        return self.difference is None or self.tolerance is None or self.difference <= self.tolerance

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON."""
        return asdict(self) | {"outputs_agree": None if self.difference is None else self.is_right}


def measure_engine(
    path: Path,
    *,
    backend: str | None = None,
    config: MeasureConfig = CAREFULLY,
    gpu: Callable[[], GpuFacts | str] = find_gpu,
    progress: Progress = silent,
) -> EngineReport:
    """Check an engine, then time it and compare its outputs.

    Without a GPU all is checked that can be, and the error says that running it is what is left.

    Args:
        path: the engine; its side-car is `PATH.json`, where there is one.
        backend: the runtime; None for the one that the side-car names.
        config: how carefully to time.
        gpu: tells the GPU, or why there is none.
        progress: told before and after.

    Raises:
        LatpruneError: it is no engine, is damaged, belongs to another runtime or GPU, or cannot be run here.
    """
    if not path.is_file():
        raise LatpruneError(f"There is no file {path}.")
    if is_onnx(path):
        raise LatpruneError(
            f"{path} is an ONNX file, whatever its name. Rename it to end in .onnx and measure it with --backend "
            "onnxruntime, or build an engine of it: latprune export."
        )
    car = read_side_car(path)
    runtime = _choose(path, backend, car)
    if car is not None and car.sha256 is not None and hash_file(path) != car.sha256:
        raise LatpruneError(
            f"{path} is not the file that its side-car describes: its SHA-256 differs. Export it again."
        )
    check = check_engine(runtime, path)
    if check.verdict == "malformed":
        raise LatpruneError(f"{path} cannot be loaded by {runtime}: {'; '.join(check.reasons)}. Export it again.")
    if check.verdict == "does not run here":
        raise BackendError(f"{path} does not run here: {'; '.join(check.reasons)}. {_built_for(car)}".strip())
    found = gpu()
    if isinstance(found, str):
        state = "is whole"
        if check.verdict != "well-formed":
            state = "could not be checked without loading it"
        elif car is None or car.sha256 is None:
            state = "reads as a whole engine, though only a side-car's SHA-256 would tell whether every byte is right"
        raise BackendError(
            f"{path.name} {state} ({runtime} {check.version}). {_built_for(car)} Running it needs such a GPU, and "
            f"there is none here: {found}"
        )
    _compare_devices(path, car, found)
    progress(Event("measure", 0, 1))
    report = _run(path, runtime, config, car)
    progress(Event("measure", 1, 1))
    return report


def is_onnx(path: Path) -> bool:
    """Whether a file holds an ONNX network, whatever it is called."""
    if looks_like_engine(path):
        return False
    try:
        return bool(onnx.load(path, load_external_data=False).graph.node)
    except Exception:  # noqa: BLE001 - protobuf's own errors, and whatever else a file that is none leads to
        return False


def read_side_car(path: Path) -> SideCar | None:
    """Read what stands beside an engine; None where nothing does.

    Raises:
        LatpruneError: it cannot be read.
    """
    beside = path.with_name(path.name + ".json")
    if not beside.is_file():
        return None
    try:
        data = json.loads(beside.read_text())
        sums = data.get("sha256") or {}
        return SideCar(
            **{name: data.get(name) for name in ("backend", "runtime_version", "precision", "predicted_ms", "onnx")},
            compute_capabilities=tuple(data.get("compute_capabilities") or ()),
            predicted_for=(data.get("measured_with") or {}).get("runtime"),
            sha256=sums.get("file"),
            batch=(data.get("batch") or {}).get("opt"),
            onnx_sha256=sums.get("onnx"),
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise LatpruneError(f"{beside} is damaged ({error}). Export the engine again, or remove it.") from error


def difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> float:
    """How far outputs lie apart, by name (`profiler.export.largest_difference`)."""
    return largest_difference([found[name] for name in wanted if name in found], list(wanted.values()))


def _choose(path: Path, backend: str | None, car: SideCar | None) -> str:
    """The runtime that runs it."""
    built_by = car.backend if car is not None else None
    chosen = backend or built_by
    if chosen is None:
        raise LatpruneError(
            f"{path} has no side-car {path.name}.json, which would say what it was built by. Say it: --backend "
            f"{' or '.join(BUILDERS)}."
        )
    if built_by is not None and built_by != chosen:
        raise LatpruneError(
            f"{path} was built by {built_by}; {chosen} cannot run it. Leave --backend out, or give {built_by}."
        )
    if chosen not in BUILDERS:
        raise LatpruneError(f"{path} is an engine, and {chosen} runs none. Give --backend {' or '.join(BUILDERS)}.")
    return chosen


def _built_for(car: SideCar | None) -> str:
    if car is None:
        return "It has no side-car that says what it was built for."
    target = f"compute capability {', '.join(car.compute_capabilities)}" if car.compute_capabilities else "its own GPU"
    by = f"{car.backend or 'an unknown runtime'} {car.runtime_version or ''}".strip()
    return f"It was built by {by} for {target}."


def _compare_devices(path: Path, car: SideCar | None, gpu: GpuFacts) -> None:
    targets = car.compute_capabilities if car is not None else ()
    if targets and gpu.compute_capability is not None and gpu.compute_capability not in targets:
        raise BackendError(
            f"{path} was built for compute capability {', '.join(targets)}; this {gpu.name} has "
            f"{gpu.compute_capability}. Export it for this one: --compute-capability {gpu.compute_capability}."
        )


def _run(path: Path, runtime: str, config: MeasureConfig, car: SideCar | None) -> EngineReport:
    with WorkerClient(runtime) as client:
        timed = client.time(path, config)
        if timed.failure is not None or timed.median_ms is None or timed.noise is None:
            raise BackendError(f"{path} cannot be measured with {runtime}: {timed.failure}")
        promised, said = _promise(car, runtime)
        report = EngineReport(
            measured_ms=timed.median_ms,
            noise=timed.noise,
            samples=len(timed.samples_ms),
            backend=runtime,
            discarded=timed.discarded,
            p99_ms=timed.p99_ms,
            predicted_ms=promised,
            command=timed.command,
            remarks=(*timed.remarks, *said),
        )
        source = path.with_name((car.onnx if car is not None else None) or MODEL)
        if not source.is_file():
            return _not_compared(report, f"there is no {source.name} beside it")
        if car is not None and car.onnx_sha256 not in (None, hash_file(source)):
            return _not_compared(report, f"{source.name} beside it is not the file that it was built from")
        feeds = random_feeds(source, None if car is None else car.batch)
        outputs = client.outputs(path, feeds)
    if outputs.failure is not None:
        raise BackendError(f"{path} gives no outputs with {runtime}: {outputs.failure}")
    with WorkerClient("onnxruntime") as client:
        wanted = client.outputs(source, feeds)
    if wanted.failure is not None:
        return _not_compared(report, f"ONNX Runtime cannot run {source.name} ({wanted.failure})")
    precision = (car.precision if car is not None else None) or "fp32"
    return replace(
        report,
        difference=difference(outputs.outputs, wanted.outputs),
        tolerance=TOLERANCES.get(precision, max(TOLERANCES.values())),
    )


def _promise(car: SideCar | None, runtime: str) -> tuple[float | None, tuple[str, ...]]:
    """The latency that was predicted for this runtime, and what to say where there is none."""
    if car is None:
        return None, (NO_PROMISE,)
    if car.predicted_ms is not None and car.predicted_for not in (None, runtime):
        return None, (f"its latency was predicted for {car.predicted_for} alone, by the table that it was pruned with",)
    return car.predicted_ms, ()


def _not_compared(report: EngineReport, why: str) -> EngineReport:
    return replace(report, remarks=(*report.remarks, f"{why}: its outputs were not compared"))


def random_feeds(path: Path, batch: int | None = None) -> dict[str, Any]:
    """Random inputs of the shapes that an ONNX file states, the same each time; of this batch where it is free.

    Raises:
        LatpruneError: a shape is not fixed.
    """
    graph = onnx.load(path, load_external_data=False).graph
    given = {item.name for item in graph.initializer}
    inputs = []
    for item in graph.input:
        if item.name in given:
            continue
        sizes = tuple(dim.dim_value for dim in item.type.tensor_type.shape.dim)
        if batch is not None and sizes[:1] == (0,):
            sizes = (batch, *sizes[1:])
        if 0 in sizes:
            raise LatpruneError(f"The input {item.name} of {path} has no fixed shape. Export it with fixed shapes.")
        inputs.append((item.name, onnx.helper.tensor_dtype_to_np_dtype(item.type.tensor_type.elem_type).type, sizes))
    return random_inputs(inputs, 0)
