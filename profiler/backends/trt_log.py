"""What TensorRT's compiler says while it builds: memory, the kernels that it fused, warnings and errors, as records."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from profiler.backends.interface import KernelRecord, KernelTensor

_MEMORY = {
    "weights_bytes": "Total Weights Memory",
    "activation_bytes": "Total Activation Memory",
    "workspace_bytes": "Max Scratch Memory",
}
_KERNEL = re.compile(
    r"^Name: (?P<name>.*?), LayerType: (?P<kind>[^,]*), Inputs: (?P<inputs>\[.*?\])"
    r"(?:, Constants: (?P<constants>\[.*?\]))?, Outputs: (?P<outputs>\[.*?\]), TacticName: (?P<tactic>.*?), "
    r"StreamId: (?P<stream>\d+)(?:, EventId: \d+)?, Metadata: (?P<metadata>.*)$"
)
_TENSOR = re.compile(
    r"\{ Name: (?P<name>.*?), Dimensions: \[(?P<shape>[-\d,]*)\].*?, Datatype: (?P<datatype>[^,}]*), "
    r"Format: (?:\((?P<short>[^)]*)\))?(?P<long>[^{]*?) \}"
)
_NODE = re.compile(r"\[ONNX Layer: (.*)\]", re.DOTALL)
_SEPARATOR = re.compile("[\x1e\x1f]")  # between a kernel's nodes, whose names may hold brackets
UNREAD = "unread"
"""The kind of a kernel whose line in the list could not be read; its name is the line's beginning."""


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
    """Read the kernels that the compiler lists at the end of a build with detailed verbosity.

    A line that reads otherwise than those of known versions is kept as a kernel of the kind `UNREAD`.
    """
    listings = [record.text for record in records if record.text.startswith("Layers:")]
    return tuple(
        _read_kernel(line) for listing in listings for line in listing.split("\n") if line.startswith("Name: ")
    )


def _read_kernel(line: str) -> KernelRecord:
    match = _KERNEL.match(line)
    if match is None:
        return KernelRecord(line[:200], UNREAD, ())
    return KernelRecord(
        name=match["name"],
        kind=match["kind"],
        onnx_nodes=read_metadata(match["metadata"]),
        stream=int(match["stream"]),
        inputs=_read_tensors(match["inputs"]),
        outputs=_read_tensors(match["outputs"]),
        tactic=match["tactic"],
    )


def read_metadata(text: str) -> tuple[str, ...]:
    """Read the names of the ONNX nodes that a kernel became, each once."""
    return tuple(dict.fromkeys(found[1] for part in _SEPARATOR.split(text) if (found := _NODE.search(part))))


def _read_tensors(text: str) -> tuple[KernelTensor, ...]:
    return tuple(
        KernelTensor(
            name=match["name"],
            shape=tuple(int(size) for size in match["shape"].split(",") if size),
            datatype=match["datatype"],
            format=match["short"] or match["long"].strip(),
        )
        for match in _TENSOR.finditer(text)
    )
