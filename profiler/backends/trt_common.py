"""What classic TensorRT and TensorRT for RTX share: building an engine.

The module of the one or the other is an argument everywhere; this file imports neither.
"""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lut.errors import BackendError
from profiler.backends.interface import BuildReport, BuildSettings
from profiler.backends.trt_log import LogRecord, make_logger, read_kernels, read_memory
from profiler.backends.trt_progress import BuildProgress, make_monitor
from profiler.nvml import find_gpu

MALFORMED = 32
"""`EngineInvalidityDiagnostics.MALFORMED_ENGINE`; without a GPU a good engine is INVALID with no diagnostics."""
SHOWN_ERRORS = 3


def build_engine(
    trt: Any, path: Path, out: Path, *, backend: str, settings: BuildSettings, configure: Callable[[Any], None]
) -> BuildReport:
    """Compile an ONNX file into an engine: strongly typed, TF32 off; written whole or not at all.

    Args:
        trt: the module, `tensorrt` or `tensorrt_rtx`.
        path: the ONNX file; its types are the engine's precision.
        out: the engine; its folder is made.
        backend: the name for the report.
        settings: what for.
        configure: sets on the builder's configuration what only one of the two modules has.

    Raises:
        BackendError: the network cannot be parsed (which node) or built (the compiler's words).
    """
    if not path.is_file():
        raise BackendError(f"There is no file {path}.")
    start = time.perf_counter()
    given = settings.given or str(path)
    records: list[LogRecord] = []
    logger = make_logger(trt, records)
    builder = trt.Builder(logger)
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(path)):
        raise BackendError(_parse_failure(given, parser))
    config = builder.create_builder_config()
    pin(trt, config, settings)
    configure(config)
    _allow_batches(builder, network, config, settings)
    monitor = make_monitor(trt, BuildProgress(f"compile {settings.given or path.name}", settings.progress))
    config.progress_monitor = monitor
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        failure = _build_failure(given, records, settings)
        _build_next_to_nothing(trt, configure)
        raise BackendError(failure)
    _check_engine(trt, logger, engine, given)
    write_atomically(out, engine)
    return BuildReport(
        path=str(out),
        backend=backend,
        version=str(trt.__version__),
        compute_capabilities=settings.compute_capabilities,
        **read_memory(records),
        engine_bytes=out.stat().st_size,
        seconds=time.perf_counter() - start,
        kernels=read_kernels(records),
        warnings=tuple(dict.fromkeys(record.text for record in records if record.severity == "WARNING")),
        max_aux_streams=settings.max_aux_streams,
    )


def pin(trt: Any, config: Any, settings: BuildSettings) -> None:
    """Set on a builder's configuration what changes an engine."""
    config.clear_flag(trt.BuilderFlag.TF32)
    config.max_aux_streams = settings.max_aux_streams
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if settings.optimisation_level is not None:
        config.builder_optimization_level = settings.optimisation_level
    if settings.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_bytes)


def _allow_batches(builder: Any, network: Any, config: Any, settings: BuildSettings) -> None:
    """Give inputs whose first dimension is free the batches that are asked for.

    Raises:
        BackendError: none were asked for, they are in no order, or another dimension is free.
    """
    inputs = [network.get_input(number) for number in range(network.num_inputs)]
    free = [item for item in inputs if any(size < 0 for size in item.shape)]
    if not free:
        return
    named = ", ".join(f"{item.name} {tuple(item.shape)}" for item in free)
    if any(size < 0 for item in free for size in tuple(item.shape)[1:]):
        raise BackendError(f"More than the batch is free in {named}. Export the network with fixed shapes.")
    if settings.batches is None:
        raise BackendError(f"The batch is free in {named}: say the least, the best and the most, or export it fixed.")
    if not 0 < settings.batches[0] <= settings.batches[1] <= settings.batches[2]:
        raise BackendError(f"Batches go from the least over the best to the most; given were {settings.batches}.")
    profile = builder.create_optimization_profile()
    for item in free:
        profile.set_shape(item.name, *((batch, *tuple(item.shape)[1:]) for batch in settings.batches))
    config.add_optimization_profile(profile)


def write_atomically(out: Path, content: Any) -> None:
    """Write a file beside its place and rename it, so that no half of an engine is ever read.

    Raises:
        BackendError: there is no room for it, or no leave to write there.
    """
    try:
        _write(out, content)
    except OSError as error:
        raise BackendError(
            f"{out} cannot be written: {error.strerror or error}. It takes {memoryview(content).nbytes} bytes; nothing "
            "was left there."
        ) from error


def _write(out: Path, content: Any) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(memoryview(content))
        Path(name).chmod(0o644)
        Path(name).replace(out)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def no_gpu(backend: str) -> BackendError:
    """The error for measuring where there is no GPU, or none can be seen."""
    found = find_gpu()
    why = found if isinstance(found, str) else f"{found.name} was found, but CUDA cannot use it."
    return BackendError(
        f"Timing with {backend} needs a GPU, and this machine has none that can be used: {why} Engines can be built "
        "here for a device given by name with tensorrt-rtx; time them there, or measure with --backend onnxruntime."
    )


def _network_flags(trt: Any) -> int:
    """Strong typing; TensorRT 10 is weakly typed without the flag, later ones may not have it any more."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _build_next_to_nothing(trt: Any, configure: Callable[[Any], None]) -> None:
    """Build a network of one identity, so that a failure leaves nothing behind.

    What TensorRT for RTX 1.7.1 builds next in the same process is otherwise compiled for the capability that failed,
    whatever is asked for, and nothing says so.
    """
    builder = trt.Builder(make_logger(trt, []))
    network = builder.create_network(_network_flags(trt))
    network.mark_output(network.add_identity(network.add_input("x", trt.float32, (1,))).get_output(0))
    config = builder.create_builder_config()
    configure(config)
    builder.build_serialized_network(network, config)


def _parse_failure(given: str, parser: Any) -> str:
    """What the parser says, with what to do; its own description is often no more than the condition that failed."""
    errors = [parser.get_error(number) for number in range(min(parser.num_errors, SHOWN_ERRORS))]
    shown = [
        f"the operation {error.node_operator()} of node {error.node_name()!r} ({error.desc()})"
        if error.node_operator()
        else str(error.desc())
        for error in errors
    ]
    message = f"TensorRT cannot read {given}: " + ("; ".join(dict.fromkeys(shown)) or "it says nothing of why")
    if any(error.node_operator() for error in errors):
        message += (
            ". It does not have that operation, or not with these inputs. Compute it in another way in the network, or "
            "deploy the part without it: network(model) in the task names that part (tasks/README.md)."
        )
    return message


def _build_failure(given: str, records: list[LogRecord], settings: BuildSettings) -> str:
    errors = [record.text for record in records if record.severity in ("ERROR", "INTERNAL_ERROR")]
    shown = "; ".join(dict.fromkeys(errors[:SHOWN_ERRORS])) or "it says nothing of why"
    message = f"TensorRT cannot build an engine from {given}: {shown}"
    if "7.5" in settings.compute_capabilities and any("FP32 GEMM" in text for text in errors):
        message += (
            " — compute capability 7.5 (Turing) has no fp32 matrix product, so a network with a linear layer, "
            "attention or a recurrent layer fails there in fp32. Export it (latprune export writes linear layers as "
            "convolutions there), in fp16 where that does not help, or build for 8.0 or later."
        )
    return message


def _check_engine(trt: Any, logger: Any, engine: Any, given: str) -> None:
    runtime = trt.Runtime(logger)
    if hasattr(runtime, "get_engine_validity"):
        validity, diagnostics = runtime.get_engine_validity(engine)
        if int(diagnostics) & MALFORMED:
            raise BackendError(
                f"TensorRT built a malformed engine from {given} ({validity}, diagnostics {diagnostics})."
            )
