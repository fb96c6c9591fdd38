"""What TensorRT's compiler says while it builds: memory, the kernels that it fused, warnings and errors, as records."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from profiler.backends.interface import KernelRecord

_MEMORY = {
    "weights_bytes": "Total Weights Memory",
    "activation_bytes": "Total Activation Memory",
    "workspace_bytes": "Max Scratch Memory",
}
_KERNEL = re.compile(r"^Name: (?P<name>.*?), LayerType: (?P<kind>[^,]*),", re.MULTILINE)


@dataclass(frozen=True)
class LogRecord:
    """One message of the compiler: its severity's name ("ERROR", "VERBOSE" …) and its text."""

    severity: str
    text: str


def make_logger(trt: Any, records: list[LogRecord]) -> Any:
    """Make a logger that keeps every message, at VERBOSE, and prints none."""

    class Recorder(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            records.append(LogRecord(severity.name, message))

    return Recorder()


def read_memory(records: Iterable[LogRecord]) -> dict[str, int | None]:
    """Read the compiler's figures in bytes; the largest of several builds (one a capability), else None."""
    texts = [record.text for record in records]
    found: dict[str, int | None] = {}
    for name, label in _MEMORY.items():
        pattern = re.compile(rf"{label}: (\d+) bytes")
        sizes = [int(match[1]) for text in texts for match in pattern.finditer(text)]
        found[name] = max(sizes, default=None)
    return found


def read_kernels(records: Iterable[LogRecord]) -> tuple[KernelRecord, ...]:
    """Read the kernels that the compiler lists at the end of a build with detailed verbosity."""
    listing = "\n".join(record.text for record in records if record.text.startswith("Layers:"))
    lines = [line for line in listing.splitlines() if line.startswith("Name: ")]
    kernels = []
    for line in lines:
        match = _KERNEL.match(line)
        if match is None:
            continue
        stream = re.search(r"StreamId: (\d+)", line)
        nodes = dict.fromkeys(re.findall(r"\[ONNX Layer: ([^\]]*)\]", line))
        number = int(stream[1]) if stream else None
        kernels.append(KernelRecord(match["name"], match["kind"], tuple(nodes), number))
    return tuple(kernels)
