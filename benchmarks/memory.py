"""`make memory`: the memory that latprune predicts beside what TensorRT for RTX says; resumable.

Each network is built at full and at five uneven shrunk widths, for compute capability 8.6, in fp32, on one stream;
engines are not kept.
"""

import argparse
import datetime
import json
import re
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx

from benchmarks.memory_networks import HELD_OUT, NETWORKS, READ_LATER, SHRUNK, make, uneven_widths
from benchmarks.settings import hash_files, read_versions
from lut.errors import LatpruneError
from lut.memory import Memory
from profiler.backends import BuildSettings
from profiler.backends.tensorrt_rtx import MEMORY, TensorRtRtx
from profiler.compiled import compiled_liveness
from profiler.export import write_onnx
from profiler.graph_memory import graph_memory
from profiler.network import analyze
from profiler.variants import prepare
from pruner.atomic import write_text

ROOT = Path(__file__).parent.parent
STORE = ROOT / "runs" / "memory"
REPORT = ROOT / "docs" / "memory.md"
MARK = "<!-- figures of `make memory` -->"
"""What stands behind this line in the report is written anew."""
SETTINGS = BuildSettings(("8.6",), max_aux_streams=0)
PACKAGES = ("torch", "torchvision", "onnx", "onnxscript", "tensorrt_rtx_cu13")
SOURCES = ("lut/memory.py", "lut/packing.py", "profiler/**/*.py", "benchmarks/memory*.py")
GOAL = 0.05
EVERY = (*NETWORKS, *READ_LATER, *HELD_OUT)


@dataclass(frozen=True)
class Row:
    """One network at one vector of widths; all sizes in bytes, activations with the workspace.

    Attributes:
        compiler: what the builder announces.
        trace: what the trace says, from the widths alone.
        file: what the exported file's graph says, or None where a shape cannot be inferred.
        live: the same with tensors summed while they live, as without a compiler's rules.
        compiler_weights, weights: of the parameters.
        workspace: what the rules hold beside the tensors.
        kernels: that the network became.
        seconds: of the build.
    """

    compiler: int
    trace: int
    file: int | None
    live: int
    compiler_weights: int
    weights: int
    workspace: int
    kernels: int
    seconds: float


def main() -> None:
    """Measure the networks that are not stored yet, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=EVERY, metavar="NETWORK", help=", ".join(EVERY))
    parser.add_argument("--again", action="store_true", help="measure stored networks anew")
    given = parser.parse_args()
    for name in given.only or EVERY:
        if given.again or read(name) is None:
            sys.stderr.write(f"{name}\n")
            write(name, measure(name))
    write_report()


def measure(name: str) -> list[Row]:
    """Build a network at full and at shrunk widths, and count its memory at each."""
    model, inputs = make(name)
    network = analyze(model, (inputs,))
    variants, liveness = prepare(network), compiled_liveness(network.structure, MEMORY)
    rows = []
    with tempfile.TemporaryDirectory(prefix="latprune-") as folder:
        path = Path(folder, "network.onnx")
        for widths in [network.widths, *(uneven_widths(network.widths, number) for number in range(SHRUNK))]:
            proto = variants.at(variants.widths_removal(widths))
            write_onnx(proto, path)
            built = TensorRtRtx().build(path, Path(folder, "network.engine"), SETTINGS)
            assert built.activation_bytes is not None
            assert built.weights_bytes is not None
            trace, live = liveness.at(widths), network.memory(widths)
            rows.append(
                Row(
                    compiler=built.activation_bytes,
                    trace=_needed(trace),
                    file=_counted(proto),
                    live=live.peak_activation_bytes + trace.workspace_bytes,
                    compiler_weights=built.weights_bytes,
                    weights=trace.weights_bytes,
                    workspace=trace.workspace_bytes,
                    kernels=len(built.kernels),
                    seconds=round(built.seconds, 2),
                )
            )
    return rows


def _counted(proto: onnx.ModelProto) -> int | None:
    try:
        return _needed(graph_memory(proto, MEMORY))
    except LatpruneError:
        return None


def _needed(memory: Memory) -> int:
    return memory.peak_activation_bytes + memory.workspace_bytes


def _setting() -> dict[str, Any]:
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    return {"date": today, "versions": read_versions(PACKAGES), "sources": hash_files(SOURCES)}


def _path(name: str) -> Path:
    return STORE / f"{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}.json"


def write(name: str, rows: list[Row]) -> None:
    """Keep a network's rows, in the place of those that may be there."""
    STORE.mkdir(parents=True, exist_ok=True)
    content = {"name": name, "setting": _setting(), "rows": [asdict(row) for row in rows]}
    write_text(_path(name), json.dumps(content, indent=1) + "\n")


def read(name: str) -> tuple[dict[str, Any], list[Row]] | None:
    """A network's setting and rows, or None where they are not stored."""
    if not _path(name).is_file():
        return None
    content = json.loads(_path(name).read_text())
    return content["setting"], [Row(**row) for row in content["rows"]]


def write_report() -> None:
    """Write the figures behind the report's mark; what stands before it is kept."""
    stored = {name: found for name in EVERY if (found := read(name)) is not None}
    text = REPORT.read_text() if REPORT.is_file() else f"# Memory\n\n{MARK}\n"
    lines = [_origin([setting for setting, _ in stored.values()])]
    for title, names in (
        ("The networks", NETWORKS),
        ("A network that was held out, until rules were read from it", READ_LATER),
        ("Networks from which no rule was read", HELD_OUT),
    ):
        lines += ["", f"## {title}", "", *_table({name: stored[name][1] for name in names if name in stored})]
    write_text(REPORT, text[: text.index(MARK) + len(MARK)] + "\n\n" + "\n".join(lines) + "\n")


def _origin(settings: list[dict[str, Any]]) -> str:
    dates = sorted({setting["date"] for setting in settings})
    versions = sorted({f"{name} {version}" for setting in settings for name, version in setting["versions"].items()})
    sources = sorted({setting["sources"] for setting in settings})
    return (
        f"`make memory`, {' to '.join(dict.fromkeys([dates[0], dates[-1]]))}; {', '.join(versions)}; sources "
        f"{', '.join(sources)}. The machine does not matter. Errors: full width / the worst of five shrunk."
    )


def _table(networks: dict[str, list[Row]]) -> list[str]:
    rows = [row for found in networks.values() for row in found]
    close = sum(abs(row.trace / row.compiler - 1) <= GOAL for row in rows)
    lines = [
        f"{close} of {len(rows)} within {GOAL:.0%} of the compiler's figure, from widths alone.",
        "",
        "| network | compiler, full (MB) | trace | file | live tensors alone | weights | kernels | build (s) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, found in networks.items():
        full = found[0]
        cells = [name, f"{full.compiler / 1e6:.2f}"]
        for figure in ("trace", "file", "live"):
            said = [getattr(row, figure) for row in found]
            if None in said:
                cells.append("–")
                continue
            errors = [one / row.compiler - 1 for one, row in zip(said, found, strict=True)]
            cells.append(f"{errors[0]:+.2%} / {max(errors[1:], key=abs):+.2%}")
        weights = max((row.weights / row.compiler_weights - 1 for row in found), key=abs)
        seconds = sum(row.seconds for row in found) / len(found)
        cells += [f"{weights:+.2%}", str(full.kernels), f"{seconds:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
