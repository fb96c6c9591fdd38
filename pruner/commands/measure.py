"""`latprune measure`: time a whole network on this device."""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lut import BackendError
from profiler.backends import get_backend
from pruner.commands.options import Batch, Input, Json, Precision, Threads, find_task
from pruner.commands.output import print_json, results
from pruner.commands.parsing import OptionError
from pruner.commands.progress import working
from pruner.show import ENGINES, format_ms, format_percent, memory_line

if TYPE_CHECKING:
    from profiler.progress import Progress

DEFAULT = "onnxruntime"
FILES = (".onnx", *ENGINES)
"""Endings of networks in a file; all else that is no directory is a task."""


def measure(
    target: Annotated[
        str, typer.Argument(metavar="TASK|RUN/|FILE", help="A task, a run, a .onnx or an .engine.", show_default=False)
    ],
    backend: Annotated[
        str | None,
        typer.Option(
            "--backend",
            help="The runtime; `latprune backends` lists them [default: onnxruntime; an engine's own].",
            show_default=False,
        ),
    ] = None,
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
    path = Path(target)
    if path.suffix in ENGINES and not path.is_dir():
        _refuse_inputs(target, input, batch)
        _measure_engine(path, backend, json)
        return
    backend = backend or DEFAULT
    with working() as progress:
        _check_backend(backend)
        from pruner.deploy import measure as run

        _refuse_engine(path)
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
    for line in gpu_lines(found):
        console.print(line, soft_wrap=True)


def gpu_lines(found: Mapping[str, Any]) -> list[str]:
    """What is said only of figures from a GPU: the slow end, the builds, how to reproduce it, what to know of it."""
    lines = []
    if found.get("p99_ms") is not None:
        lines.append(f"99 of 100 runs are within {format_ms(found['p99_ms'])}")
    if found.get("between_builds") is not None:
        count, spread = len(found["builds_ms"]), format_percent(found["between_builds"])
        lines.append(f"{count} engines built anew differ by {spread}; the figure is the middle one's")
    if found.get("command") is not None:
        lines.append(f"to compare: {found['command']}")
    return [*lines, *(found.get("remarks") or ())]


def _measure_engine(path: Path, backend: str | None, json: bool) -> None:
    """Check an engine, run it where there is a GPU, and show how it kept its promises; exit 1 if outputs differ."""
    with working() as progress:
        from pruner.engine_file import measure_engine

        report = measure_engine(path, backend=backend, progress=progress)
    if json:
        print_json(report.to_json())
    else:
        console = results()
        spread = f"{report.samples} samples, {report.discarded} discarded"
        console.print(f"{format_ms(report.measured_ms, report.noise)} ({spread}) on {report.backend}", soft_wrap=True)
        if report.predicted_ms is not None:
            console.print(f"predicted were {format_ms(report.predicted_ms)}", soft_wrap=True)
        if report.difference is not None:
            words = "agree" if report.is_right else "do NOT agree"
            console.print(f"outputs {words} with the ONNX file's: {report.difference:.2g} apart", soft_wrap=True)
        for line in gpu_lines(report.to_json()):
            console.print(line, soft_wrap=True)
    if not report.is_right:
        raise typer.Exit(1)


def _refuse_engine(path: Path) -> None:
    """Refuse an engine that is called .onnx."""
    from profiler.backends.trt_validity import looks_like_engine

    if path.is_file() and path.suffix == ".onnx" and looks_like_engine(path):
        raise BackendError(
            f"{path} is an engine, whatever its name. Rename it to end in .engine and give --backend tensorrt-rtx or "
            "tensorrt."
        )


def _refuse_inputs(target: str, input_text: str | None, batch: int | None) -> None:
    if input_text is not None or batch is not None:
        raise OptionError(f"--input and --batch go with a task; {target} has its shapes already.\nLeave them out")


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
        _refuse_inputs(target, input_text, batch)
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
