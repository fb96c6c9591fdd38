"""`latprune measure`: time a whole network on this device."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lut import BackendError
from profiler.backends import get_backend
from pruner.commands.options import BackendName, Batch, Input, Json, Precision, Threads, find_task
from pruner.commands.output import print_json, results
from pruner.commands.parsing import OptionError
from pruner.commands.progress import working
from pruner.show import format_ms, memory_line

if TYPE_CHECKING:
    from profiler.progress import Progress

FILES = (".onnx", ".engine", ".plan")
"""Endings of networks in a file; all else that is no directory is a task."""


def measure(
    target: Annotated[
        str, typer.Argument(metavar="TASK|RUN/|FILE", help="A task, a run, a .onnx or an .engine.", show_default=False)
    ],
    backend: BackendName = "onnxruntime",
    threads: Threads = 1,
    precision: Precision = "fp32",
    input: Input = None,
    batch: Batch = None,
    json: Json = False,
) -> None:
    """Time a whole network on this device."""
    if precision != "fp32":
        raise OptionError(
            f"--precision {precision}: networks are measured as they are written, which is fp32 so far.\n"
            "Leave it out; the precision of a FILE stands in the file"
        )
    with working() as progress:
        _check_backend(backend)
        from pruner.deploy import measure as run

        with _file(target, input, batch, progress) as path:
            report = run(path, backend=backend, threads=threads, progress=progress)
    found: dict[str, Any] = report.to_json()
    if json:
        print_json(found)
        return
    console = results()
    discarded = f", {found['discarded']} discarded" if "discarded" in found else ""
    spread = f"{found['samples']} samples{discarded}"
    console.print(f"{format_ms(found['measured_ms'], found['noise'])} ({spread}) on {found['backend']}")
    if found.get("total_bytes") is not None:
        console.print(memory_line(found))


def _check_backend(name: str) -> None:
    """Refuse a runtime that cannot measure here, before a network is exported for it."""
    status = get_backend(name).status()
    if "measures" not in status.abilities:
        raise BackendError(status.why_not or f"The backend {name} cannot measure on this machine.")


@contextlib.contextmanager
def _file(target: str, input_text: str | None, batch: int | None, progress: "Progress") -> Iterator[Path]:
    """The target as a path: a run or a file as it is, a task's network written as ONNX for the while."""
    path = Path(target)
    if path.is_dir() or path.suffix in FILES:
        if input_text is not None or batch is not None:
            raise OptionError(f"--input and --batch go with a task; {target} has its shapes already.\nLeave them out")
        yield path
        return
    from profiler.export import to_onnx, write_onnx
    from profiler.progress import Event

    task = find_task(target, input_text, batch)
    progress(Event("export the network", 0, 1))
    with tempfile.TemporaryDirectory(prefix="latprune-") as folder:
        written = Path(folder, "network.onnx")
        write_onnx(to_onnx(task.deployed(task.build()), task.inputs()), written)
        progress(Event("export the network", 1, 1))
        yield written
