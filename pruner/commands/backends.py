"""`latprune backends`: which runtimes are here, what they can do, which is used, and why another is not."""

from dataclasses import asdict

from profiler.backends import statuses
from profiler.nvml import find_gpu
from pruner.commands.options import Json
from pruner.commands.output import make_table, print_json, results
from pruner.commands.progress import working
from pruner.show import NOTHING

DEFAULT = "onnxruntime"
"""What commands use that are given no `--backend`."""


def backends(json: Json = False) -> None:
    """Which runtimes are here, which is used, and why another is not."""
    with working():
        found, gpu = statuses(), find_gpu()
    if json:
        told = {"gpu": None, "no_gpu_because": gpu} if isinstance(gpu, str) else {"gpu": asdict(gpu)}
        print_json({"backends": [asdict(status) for status in found], "default": DEFAULT, **told})
        return
    table = make_table("", "backend", "version", "can", "what is missing")
    for status in found:
        what = ", ".join(status.abilities) or ("nothing here" if status.installed else "not installed")
        table.add_row(status.name, status.version or NOTHING, what, status.why_not or "")
    console = results()
    console.print(table)
    console.print(f"Without --backend, {DEFAULT} is used.", soft_wrap=True)
    if isinstance(gpu, str):
        console.print(f"No NVIDIA GPU can be used here: {gpu}", soft_wrap=True)
    else:
        capability = f", compute capability {gpu.compute_capability}" if gpu.compute_capability else ""
        console.print(f"NVIDIA GPU: {gpu.name}{capability}, driver {gpu.driver or NOTHING}", soft_wrap=True)
