"""`make fusion`: the kernels that TensorRT for RTX makes of networks, beside their ONNX nodes and our units; resumable.

Each network is compiled at full and at uneven widths, for compute capability 8.6, with no GPU, in a child of its own;
docs/fusion.md is written from what is kept in `runs/fusion`, a file for each network and precision.
"""

import argparse
import json
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.fusion_report import write_report
from benchmarks.memory_networks import NETWORKS, make, uneven_widths
from lut.errors import LatpruneError
from pruner.atomic import write_text

ROOT = Path(__file__).parent.parent
STORE = ROOT / "runs" / "fusion"
REPORT = ROOT / "docs" / "fusion.md"
PRECISIONS = ("fp32", "fp16", "int8")
CAPABILITY = "8.6"
WIDTHS = {"full": None, "uneven": 0}
"""The numbers of `uneven_widths`."""
PROBED = tuple(range(56, 73))
OPERATIONS = ("convolution", "depthwise", "linear")
LAST_WORDS = 300


@dataclass(frozen=True)
class Row:
    """One network at one vector of widths in one precision; counts.

    Attributes:
        widths: which.
        failure: why there is no engine, or None; then nothing else is told.
        nodes, covered: of the ONNX graph, and those that kernels name.
        folded: nodes without a kernel, by the rule that explains it.
        unaccounted: names of the nodes that nothing explains.
        roles: kernels by role.
        pads: kernels that pad, alone or along the way.
        streams: kernels by stream, where the compiler may use more than one.
        agreements: units by how the kernels agree with the cut.
        patterns: kernels that span units, by the operations of these.
        spread: units that are spread over several kernels, by operation.
    """

    widths: str
    failure: str | None = None
    nodes: int = 0
    covered: int = 0
    folded: dict[str, int] | None = None
    unaccounted: tuple[str, ...] = ()
    roles: dict[str, int] | None = None
    pads: int = 0
    streams: dict[str, int] | None = None
    agreements: dict[str, int] | None = None
    patterns: dict[str, int] | None = None
    spread: dict[str, int] | None = None


def main() -> None:
    """Compile what is not stored yet, each network in a child, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=NETWORKS, metavar="NETWORK", help=", ".join(NETWORKS))
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--again", action="store_true", help="compile stored networks anew")
    parser.add_argument("--report", action="store_true", help="write the report alone")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child == "padding":
        write("padding", probe(given.precisions))
        return
    if given.child:
        compile_network(given.child, given.precisions)
        return
    for name in [] if given.report else [*(given.only or NETWORKS), *([] if given.only else ["padding"])]:
        missing = [p for p in given.precisions if given.again or not path_of(name, p).is_file()]
        if name == "padding":
            missing = list(given.precisions) if given.again or not path_of(name).is_file() else []
        if missing:
            sys.stderr.write(f"{name}: {', '.join(missing)}\n")
            _run_child(name, missing)
    write_report(REPORT, STORE, tuple(NETWORKS), PRECISIONS)


def _run_child(name: str, precisions: list[str]) -> None:
    command = [sys.executable, "-m", "benchmarks.fusion", "--child", name, "--precisions", *precisions]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        last = done.stderr.strip()[-LAST_WORDS:]
        for precision in precisions:
            if name != "padding" and not path_of(name, precision).is_file():
                write(name, [asdict(Row("full", failure=f"the child ended with {done.returncode}: {last}"))], precision)
        sys.stderr.write(f"  ended with {done.returncode}: {last}\n")


def compile_network(name: str, precisions: list[str]) -> None:
    """Compile a network at all widths in some precisions, and keep what came of it."""
    from profiler.network import analyze
    from profiler.variants import prepare

    model, inputs = make(name)
    network = analyze(model, (inputs,))
    variants = prepare(network)
    for precision in precisions:
        rows = []
        for label, number in WIDTHS.items():
            widths = network.widths if number is None else uneven_widths(network.widths, number)
            rows.append(_row(label, variants, widths, precision))
        write(name, [asdict(row) for row in rows], precision)


def _row(label: str, variants: Any, widths: dict[str, int], precision: Any) -> Row:
    from collections import Counter

    from profiler.compiler_fusion import FusionSettings, read_fusion

    settings = FusionSettings((CAPABILITY,), precision, streams=True)
    try:
        found = read_fusion(variants, widths, settings)
    except LatpruneError as error:
        return Row(label, failure=str(error)[:LAST_WORDS])
    told = found.to_json()
    return Row(
        widths=label,
        nodes=found.nodes,
        covered=found.covered,
        folded=told["nodes_folded"],
        unaccounted=found.unaccounted,
        roles=dict(Counter(kernel.role for kernel in found.kernels)),
        pads=sum(kernel.pads for kernel in found.kernels),
        streams=told["streams"],
        agreements=told["agreements"],
        patterns=told["patterns"],
        spread=dict(Counter(unit.operation for unit in found.units if unit.agreement == "spread")),
    )


def probe(precisions: list[str]) -> list[dict[str, Any]]:
    """Padding kernels of one layer at each width, as its output's and as its input's."""
    from profiler.compiler_fusion import FusionSettings, probe_padding

    found = []
    for precision in precisions:
        for operation in OPERATIONS:
            settings = FusionSettings((CAPABILITY,), precision)  # type: ignore[arg-type]
            try:
                at = {str(width): probe_padding(operation, width, settings) for width in PROBED}
            except LatpruneError as error:
                found.append({"precision": precision, "operation": operation, "failure": str(error)[:LAST_WORDS]})
                continue
            found.append({"precision": precision, "operation": operation, "at": at})
    return found


def path_of(name: str, precision: str = "all") -> Path:
    """Where a network's rows in one precision are kept."""
    return STORE / f"{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}.{precision}.json"


def write(name: str, rows: list[dict[str, Any]], precision: str = "all") -> None:
    """Keep rows, with the day and the versions."""
    import datetime

    from benchmarks.coverage_store import read_versions

    STORE.mkdir(parents=True, exist_ok=True)
    versions = read_versions(("torch", "torchvision", "onnx", "onnxscript", "onnxruntime", "tensorrt_rtx_cu13"))
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    content = {"name": name, "date": today, "versions": versions, "rows": rows}
    write_text(path_of(name, precision), json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
