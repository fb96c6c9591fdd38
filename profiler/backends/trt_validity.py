"""Whether a file is a TensorRT engine that can be loaded, asked of the runtime itself: partly without a GPU.

The module of classic TensorRT or TensorRT for RTX is an argument; this file imports neither.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from profiler.backends.trt_log import LogRecord, make_logger

DIAGNOSTICS = {
    "VERSION_MISMATCH": "it was built by another version of the runtime than the one that is here",
    "UNSUPPORTED_CC": "it was built for GPUs of another compute capability than the one that is here",
    "OLD_CUDA_DRIVER": "the NVIDIA driver here is too old for it",
    "OLD_CUDA_RUNTIME": "the CUDA libraries here are too old for it",
    "INSUFFICIENT_GPU_MEMORY": "the GPU here has too little memory for it",
    "MALFORMED_ENGINE": "its content is damaged, or it is no engine of this runtime",
    "CUDA_ERROR": "CUDA failed while it was looked at",
}
"""TensorRT for RTX's `EngineInvalidityDiagnostics`, in words."""
MALFORMED = "MALFORMED_ENGINE"
MAGIC, LAYOUT = b"vtrt", 2
"""How engines of TensorRT for RTX 1.7 begin: these letters, a number for the layout, then their own length in bytes.

Not documented; seen on every engine that was built. `get_engine_validity` takes an engine that was cut short for a good
one, so the length is compared where the beginning is as known, and nothing is concluded where it is not.
"""

Verdict = Literal["malformed", "runs here", "does not run here", "well-formed", "not told"]


@dataclass(frozen=True)
class EngineCheck:
    """What the runtime says of an engine.

    Attributes:
        verdict: "well-formed" is all that can be told without a GPU; "not told" where the runtime has no such check
            (classic TensorRT: it shows when the engine is loaded).
        reasons: why it is malformed or does not run here, in words.
        version: the runtime's.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    version: str


def check_validity(trt: Any, path: Path) -> EngineCheck:
    """Ask the runtime whether a file is an engine that it can load, without loading it."""
    records: list[LogRecord] = []
    runtime = trt.Runtime(make_logger(trt, records))
    version = str(trt.__version__)
    if not hasattr(runtime, "get_engine_validity"):
        return EngineCheck("not told", (), version)
    content = path.read_bytes()
    if is_cut_short(content):
        return EngineCheck(
            "malformed", ("it is not as long as it says itself: writing or copying it was cut short",), version
        )
    validity, bits = runtime.get_engine_validity(content)
    kinds = trt.EngineInvalidityDiagnostics
    found = [name for name in DIAGNOSTICS if hasattr(kinds, name) and int(bits) & int(getattr(kinds, name))]
    reasons = tuple(DIAGNOSTICS[name] for name in found)
    if MALFORMED in found:
        return EngineCheck("malformed", reasons, version)
    if validity in (trt.EngineValidity.VALID, trt.EngineValidity.SUBOPTIMAL):
        return EngineCheck("runs here", reasons, version)
    return EngineCheck("does not run here" if found else "well-formed", reasons, version)


def is_cut_short(content: bytes) -> bool:
    """Whether an engine is not as long as its own beginning says; False where that cannot be told."""
    magic, layout, length = content[:4], content[8:16], content[16:24]
    if magic != MAGIC or len(length) < 8 or int.from_bytes(layout, "little") != LAYOUT:
        return False
    return int.from_bytes(length, "little") != len(content)


def looks_like_engine(path: Path) -> bool:
    """Whether a file begins as TensorRT's engines do, whatever it is called."""
    with path.open("rb") as file:
        return file.read(4)[1:] == MAGIC[1:]
