"""`latprune export`: write the engine for deployment."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from profiler.backends import get_backend
from profiler.precision.offered import PRECISIONS, refuse_precision
from pruner.commands.options import Json, capabilities
from pruner.commands.output import make_table, print_json, results
from pruner.commands.parsing import OptionError
from pruner.commands.progress import duration, working
from pruner.show import format_mb

REMAINDERS = ("fp32", "fp16")


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN/", help="A run's directory.", show_default=False)],
    backend: Annotated[str, typer.Option("--backend", help="The runtime that compiles it.", show_default=False)],
    precision: Annotated[str, typer.Option("--precision", help=", ".join(PRECISIONS))] = "fp32",
    remainder: Annotated[
        str | None,
        typer.Option(
            "--remainder",
            help="With int8, what runs where nothing is quantised: fp32, or fp16 (unless said, for 7.5 only).",
            show_default=False,
        ),
    ] = None,
    compute_capability: Annotated[
        list[str] | None,
        typer.Option("--compute-capability", metavar="X.Y", help="8.6, or 8.6,8.9; repeatable; one engine for all."),
    ] = None,
    device: Annotated[
        list[str] | None, typer.Option("--device", metavar="NAME", help="A device by its name; repeatable.")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option("--task", metavar="TASK", help="Calibrates and judges [default: the task that was pruned]."),
    ] = None,
    accuracy: Annotated[
        bool, typer.Option("--accuracy/--no-accuracy", help="Have the task evaluate what was converted.")
    ] = True,
    batch: Annotated[
        str | None,
        typer.Option(
            "--batch",
            metavar="MIN:OPT:MAX",
            help="One file for several batches, fastest at OPT [default: the run's batch alone].",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="The engine [default: in RUN/].")] = None,
    json: Json = False,
) -> None:
    """Write the pruned network's engine for a device, which need not be here."""
    if precision not in PRECISIONS:
        raise OptionError(f"--precision {precision} is not known.\nGive one of: {', '.join(PRECISIONS)}")
    if remainder is not None and (remainder not in REMAINDERS or precision != "int8"):
        raise OptionError(f"--remainder {remainder} does not go with --precision {precision}.\nint8 takes fp32 or fp16")
    refuse_precision(precision)
    built_for = _targets(device or [], compute_capability or [])
    batches = None if batch is None else _batches(batch)
    abilities = get_backend(backend).status().abilities
    if built_for and "measures" in abilities and "builds" not in abilities:
        raise OptionError(
            f"{backend} runs ONNX files, and builds for no device.\nLeave --device and --compute-capability out"
        )
    with working() as progress:
        from pruner.deploy import ExportConfig, export_run
        from pruner.task import load_task

        given: dict[str, Any] = {"compute_capabilities": built_for} if built_for else {}
        config = ExportConfig(
            precision=precision,
            remainder=remainder,  # type: ignore[arg-type]
            task=None if task is None else load_task(task),
            accuracy=accuracy,
            batches=batches,
            **given,
        )
        report = export_run(run, backend=backend, config=config, out=out, progress=progress)
    found = report.to_json()
    if json:
        print_json(found)
    else:
        _show(found)


def _batches(text: str) -> tuple[int, int, int]:
    """Read "1:8:32"."""
    found = re.fullmatch(r"(\d+):(\d+):(\d+)", text.strip())
    least, best, most = (int(number) for number in found.groups()) if found else (0, 0, 0)
    if not 0 < least <= best <= most:
        raise OptionError(
            f"--batch {text!r} is no range of batches.\n"
            "Give the least, the one to be fastest at, and the most, such as 1:8:32"
        )
    return least, best, most


def _targets(devices: list[str], numbers: list[str]) -> tuple[str, ...]:
    """All compute capabilities that were asked for, each once."""
    if devices and numbers:
        raise OptionError("--device and --compute-capability say the same thing.\nGive one of them")
    found = [one for text in numbers for one in capabilities(None, text)]
    found += [one for name in devices for one in capabilities(name, None)]
    return tuple(dict.fromkeys(found))


def _sizes(found: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Lines on memory, each with the batch that it is for where that is free."""
    batch = found["batch"]
    at = "" if batch is None else f", at a batch of {batch['max']}"
    for key, size in found["ahead_of_time_bound"].items():
        if size is not None:
            yield f"{key.removesuffix('_bytes')}, as the compiler bounds it ahead of time{at}", format_mb(size)
    if batch is not None:
        yield "batches", f"{batch['min']} to {batch['max']}, best at {batch['opt']}", "compared with PyTorch at each"
        at = f", at a batch of {batch['opt']}"
        small = (found.get("memory_by_batch") or {}).get("opt") or {}
        if small.get("activation_bytes") is not None:
            yield f"activation{at}, the same of an engine for it alone", format_mb(small["activation_bytes"])
    yield f"inputs and outputs, beside that{at}", format_mb(found["io_bytes"])


def _show(found: Mapping[str, Any]) -> None:
    console = results()
    table = make_table("", "", "")
    table.show_header = False
    table.add_row("file", found["path"])
    rest = f"({found['remainder']} where it is not quantised)" if found["precision"] == "int8" else ""
    made_for = [found["backend"], found["precision"], rest, ", ".join(found["compute_capabilities"])]
    table.add_row("made for", " ".join(word for word in made_for if word))
    table.add_row("size", format_mb(found["file_bytes"]))
    if found["kernels"]:
        table.add_row("kernels", str(found["kernels"]))
        table.add_row("built in", duration(found["seconds"]))
    for words in _sizes(found):
        table.add_row(*words)
    judged = found["accuracy"]
    for name, after in (judged["after"] or {}).items():
        before = judged["before"].get(name)
        table.add_row(name, f"{after:.4g}", "" if before is None else f"pruned, in fp32: {before:.4g}")
    if judged["difference"] is not None:
        table.add_row("outputs differ by", f"{judged['difference']:.2g} of the largest", f"on {judged['compared_on']}")
    if found["kept_fp32"]:
        first = found["kept_fp32"][0]
        table.add_row("kept in fp32", str(len(found["kept_fp32"])), f"{first['node']}: {first['because']}")
    console.print(table)
    for note in found["notes"]:
        console.print(note, soft_wrap=True)
    for warning in found["warnings"]:
        console.print(f"the compiler warns: {warning}", soft_wrap=True)
