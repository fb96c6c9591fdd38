"""`latprune predict --kernels`: the kernels that TensorRT for RTX makes of a network, compiled with no GPU."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lut.errors import BackendError
from pruner.commands.options import capabilities
from pruner.commands.output import make_table, results
from pruner.commands.parsing import OptionError
from pruner.show import format_percent

if TYPE_CHECKING:
    from profiler.blocks import Block
    from profiler.network import Network
    from profiler.precision.offered import Precision
    from profiler.progress import Progress

DEFAULT_CAPABILITY = "8.6"
SHOWN = 15
"""Kernels and disagreements shown without `--all`."""
WORDS = {
    "alone": "one kernel each",
    "several": "several kernels of their own",
    "shared": "in a kernel with others",
    "spread": "over several kernels, some with others",
    "gone": "no kernel: they only move data, or are computed while building",
}
CAVEAT = (
    "This is TensorRT for RTX's fusion, not classic TensorRT's. It tells no times: which code each kernel runs is "
    "chosen on the device."
)


@dataclass(frozen=True)
class KernelTarget:
    """What to compile for."""

    compute_capabilities: tuple[str, ...]
    precision: "Precision"

    @staticmethod
    def of(device: str | None, compute_capability: str | None, precision: str | None) -> "KernelTarget":
        """Read the options, and make sure before any work that the compiler is here and can do it.

        Raises:
            OptionError: there is no such precision.
            BackendError: TensorRT for RTX is missing, or cannot compile for the device.
        """
        from profiler.backends.tensorrt_rtx import TensorRtRtx, check_capability
        from profiler.precision.offered import PRECISIONS

        chosen = precision or "fp32"
        if chosen not in PRECISIONS:
            raise OptionError(f"There is no precision {chosen!r}.\nGive one of {', '.join(PRECISIONS)}")
        status = TensorRtRtx().status()
        if not status.installed:
            raise BackendError(f"--kernels needs TensorRT for RTX to compile the network. {status.why_not}")
        targets = capabilities(device, compute_capability) or (DEFAULT_CAPABILITY,)
        for target in targets:
            check_capability(target)
        return KernelTarget(targets, chosen)


def describe_kernels(
    network: "Network",
    widths: Mapping[str, int],
    target: KernelTarget,
    progress: "Progress",
    gone: Sequence["Block"] = (),
    stay: Collection[str] = (),
) -> dict[str, Any]:
    """Compile the network at these widths, and tell what became of it, as plain JSON; groups in `stay` are whole.

    Raises:
        LatpruneError: the network cannot be written in this precision, or not compiled.
    """
    from profiler.compiler_fusion import FusionSettings, read_fusion
    from profiler.progress import Event
    from profiler.variants import prepare

    progress(Event("export the network", 0, 1))
    variants = prepare(network, stay=stay)
    progress(Event("export the network", 1, 1))
    settings = FusionSettings(target.compute_capabilities, target.precision, streams=True)
    progress(Event("compile", 0, 1))
    found = read_fusion(variants, widths, settings, gone)
    progress(Event("compile", 1, 1))
    return found.to_json() | {
        "compiler": "tensorrt-rtx",
        "compute_capabilities": list(target.compute_capabilities),
        "precision": target.precision,
        "caveat": CAVEAT,
    }


def show_kernels(report: Mapping[str, Any], *, every: bool) -> None:
    """Print what `describe_kernels` told."""
    console = results()
    kernels = report["kernels"]
    shown = kernels if every else kernels[:SHOWN]
    more = "" if len(shown) == len(kernels) else " (--all shows all)"
    table = make_table(
        f"{len(shown)} of {len(kernels)} kernels{more}", "kernel", "for", "units", "ONNX nodes", "output"
    )
    for kernel in shown:
        sizes = f" {kernel['sizes'][0]} → {kernel['sizes'][1]}" if kernel["sizes"] else ""
        what = kernel["role"] + sizes + (", pads too" if kernel["pads"] and kernel["role"] == "work" else "")
        output = " and ".join("×".join(map(str, shape)) for shape in kernel["outputs"])
        table.add_row(kernel["name"], what, ", ".join(kernel["units"]), ", ".join(kernel["nodes"]), output)
    console.print(table)
    disagreeing = [unit for unit in report["units"] if unit["agreement"] in {"shared", "spread"}]
    if disagreeing:
        some = disagreeing if every else disagreeing[:SHOWN]
        apart = make_table(f"{len(some)} of {len(disagreeing)} units that share kernels", "unit", "is", "shares with")
        for unit in some:
            apart.add_row(unit["name"], WORDS[unit["agreement"]], ", ".join(unit["partners"]))
        console.print(apart)
    for line in _sentences(report):
        console.print(line)


def _sentences(report: Mapping[str, Any]) -> list[str]:
    roles = Counter(kernel["role"] for kernel in report["kernels"])
    folded = ", ".join(f"{count} {rule}" for rule, count in report["nodes_folded"].items()) or "none"
    unaccounted = report["nodes_unaccounted"]
    lines = [
        f"for compute capability {', '.join(report['compute_capabilities'])} in {report['precision']}: "
        + ", ".join(f"{count} {role}" for role, count in roles.items()),
        f"ONNX nodes: {report['nodes_covered']} of {report['nodes']} in kernels; without one: {folded}",
    ]
    if unaccounted:
        lines.append(f"{len(unaccounted)} nodes are in no kernel, and no rule says why: {', '.join(unaccounted)}")
    if report["units_because"]:
        lines.append(f"kernels are not sorted by unit: {report['units_because']}")
    else:
        counted = "; ".join(f"{count} {WORDS[name]}" for name, count in report["agreements"].items())
        lines.append(f"units: {counted}")
        lines.append(
            f"the cut agrees with the compiler for {format_percent(report['agreeing'])} of units with a kernel"
        )
    padding = [kernel for kernel in report["kernels"] if kernel["pads"]]
    alone = sum(kernel["role"] == "padding" for kernel in padding)
    lines.append(f"kernels that pad: {alone} that do nothing else, {len(padding) - alone} along with other work")
    extra = {stream: count for stream, count in report["streams"].items() if stream != "0"}
    many = ", ".join(f"{count} on stream {stream}" for stream, count in extra.items()) or "none"
    lines.append(f"where several streams are allowed (exported engines have one): {many}")
    return [*lines, report["caveat"]]
