"""Arguments and options that several commands share, and what follows from them."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lut import LatencyTable, TableError, open_table
from pruner.commands.parsing import OptionError, parse_capabilities, parse_inputs

if TYPE_CHECKING:
    from profiler.network import Network
    from pruner.task import Task

TaskSpec = Annotated[
    str,
    typer.Argument(
        metavar="TASK",
        help="path/to/task.py, package.module, or for structure alone torchvision:NAME or timm:NAME.",
        show_default=False,
    ),
]
TablePath = Annotated[
    Path, typer.Option("--table", metavar="T.db", help="The device's latency table.", show_default=False)
]
MaybeTable = Annotated[
    Path | None, typer.Option("--table", metavar="T.db", help="The device's latency table.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, and nothing else there.")]
Input = Annotated[
    str | None,
    typer.Option("--input", metavar="SHAPE", help="Input shape, 1x3x224x224; several separated by commas."),
]
Batch = Annotated[int | None, typer.Option("--batch", min=1, help="Batch size to deploy.")]
Freeze = Annotated[
    list[str] | None,
    typer.Option("--freeze", metavar="PATTERN", help="Keep these layers whole, such as 'head.*'; repeatable."),
]
BackendName = Annotated[str, typer.Option("--backend", help="The runtime; `latprune backends` lists them.")]
Threads = Annotated[int, typer.Option("--threads", min=1, help="Threads of a CPU runtime.")]
Precision = Annotated[str, typer.Option("--precision", help="fp32, fp16 …")]
Device = Annotated[str | None, typer.Option("--device", metavar="NAME", help="A device by (part of) its name.")]
Capability = Annotated[
    str | None,
    typer.Option("--compute-capability", metavar="X.Y", help="A GPU's compute capability: 8.6, or 8.6,8.9."),
]

CAPABILITY = "8.6"
"""What memory is compiled for where nothing says so."""

# For what reads a table: without them it is whatever one fingerprint the table holds.
ChosenBackend = Annotated[str | None, typer.Option("--backend", help="Rows of this runtime.")]
MemoryOf = Annotated[
    str | None,
    typer.Option(
        "--memory-of",
        metavar="RUNTIME",
        help="Whose memory is meant: tensorrt-rtx, tensorrt-rtx:8.9, tensorrt-rtx:8.9:fp16 …; else the table's.",
    ),
]
ChosenThreads = Annotated[int | None, typer.Option("--threads", min=1, help="Rows measured with so many threads.")]
ChosenFingerprint = Annotated[
    str | None,
    typer.Option(
        "--fingerprint", metavar="KEY", help="Rows under this key (or its beginning); `table show` tells them."
    ),
]
ChosenPrecision = Annotated[str | None, typer.Option("--precision", help="Rows of this precision: fp32 …")]


@dataclass(frozen=True)
class Selection:
    """Which of a table's fingerprints is meant; None stands for any."""

    backend: str | None = None
    device: str | None = None
    compute_capability: str | None = None
    precision: str | None = None
    threads: int | None = None
    fingerprint: str | None = None

    def open(self, path: Path) -> LatencyTable:
        """Read the rows of the one fingerprint that fits.

        Raises:
            TableError: none fits, or several do; the message lists them.
            OptionError: the options name more than one device.
        """
        return open_table(
            path,
            backend=self.backend,
            device=self.device,
            compute_capability=self.one_capability(),
            precision=self.precision,
            threads=self.threads,
            fingerprint=self.fingerprint,
        )

    def open_timed(self, path: Path) -> LatencyTable:
        """As `open`, for what goes by latencies.

        Raises:
            TableError: as there, or the table was made ahead of time.
            OptionError: as there.
        """
        table = self.open(path)
        if table.fingerprint.ahead_of_time:
            raise TableError(
                f"{table.name} was made ahead of time: it holds memory and no latencies, which this goes by.\n"
                "Use it for latprune prune --memory, or profile a device: latprune profile TASK --backend …"
            )
        return table

    def one_capability(self) -> str | None:
        """The compute capability asked for, or None.

        Raises:
            OptionError: several are.
        """
        if self.compute_capability is None:
            return None
        found = parse_capabilities(self.compute_capability)
        if len(found) > 1:
            raise OptionError(
                f"--compute-capability {self.compute_capability} names {len(found)}.\n"
                "Give one: rows of two devices never mix"
            )
        return found[0]


@dataclass(frozen=True)
class MemoryTarget:
    """Whose memory is meant.

    Attributes:
        runtime: name of the backend.
        capability: what it compiles for.
        precision: of the network.
    """

    runtime: str
    capability: str
    precision: str

    @classmethod
    def read(cls, text: str | None, rows: LatencyTable) -> "MemoryTarget":
        """Read "tensorrt-rtx", "tensorrt-rtx:8.9" or "tensorrt-rtx:8.9:fp16"; what is not said is the table's.

        Raises:
            OptionError: it has more parts.
        """
        runtime, *rest = (text or "").split(":")
        if len(rest) > 2:
            raise OptionError(f"--memory-of {text}: RUNTIME, RUNTIME:8.6 or RUNTIME:8.6:fp16 is meant")
        capability, precision = [*rest, *[""] * (2 - len(rest))]
        own = not runtime or runtime == rows.fingerprint.runtime
        return cls(
            runtime or rows.fingerprint.runtime,
            capability or (own and rows.fingerprint.compute_capability) or CAPABILITY,
            precision or (table_precision(rows) if own else "fp32"),
        )


def table_precision(rows: LatencyTable) -> str:
    """The precision that a table is of: asked for, told by its fingerprint, or that of all its families."""
    told = rows.precision or dict(rows.fingerprint.settings).get("precision")
    if told is not None:
        return str(told)
    found = {family.precision for family in rows.families}
    return found.pop() if len(found) == 1 else "fp32"


def capabilities(device: str | None, compute_capability: str | None) -> tuple[str, ...]:
    """The compute capabilities to build for, by number or by a device's name; empty when neither is given.

    Raises:
        OptionError: both are given, or the number is none.
        BackendError: the device's name is not known.
    """
    if device is not None and compute_capability is not None:
        raise OptionError("--device and --compute-capability say the same thing.\nGive one of them")
    if compute_capability is not None:
        return parse_capabilities(compute_capability)
    if device is None:
        return ()
    from profiler.backends.trt_devices import capability_of

    return (capability_of(device),)


def find_task(spec: str, input_text: str | None, batch: int | None) -> "Task":
    """Load the task that the command line names.

    Raises:
        LatpruneError: there is none, or the input shape is none.
    """
    from pruner.task import load_task

    return load_task(spec, input_shape=None if input_text is None else parse_inputs(input_text), batch=batch)


def analyze_task(task: "Task", freeze: list[str] | None = None) -> "Network":
    """Trace what a task deploys.

    Raises:
        LatpruneError: the network does not run on the inputs, or a pattern names nothing.
    """
    from profiler.network import analyze

    return analyze(task.deployed(task.build()), task.inputs(), tuple(freeze or ()))
