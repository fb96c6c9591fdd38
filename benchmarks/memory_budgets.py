"""`make memory-budgets`: networks pruned to memory budgets, and the compiler's own figure for what came out; resumable.

Each cell is a whole `pruner.prune` against a table made ahead of time: magnitude importance, random weights, no
training. The budget is a share of the compiler's figure for the unpruned network; what is judged is its figure for the
file that the run wrote. Nothing is timed, and the machine does not matter.
"""

import argparse
import datetime
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from benchmarks.coverage_store import read_versions
from benchmarks.memory_networks import NETWORKS, make
from lut import LatencyTable
from lut.errors import BudgetError, LatpruneError
from profiler.ahead import Compiler, Target, as_precision
from pruner.atomic import write_text
from pruner.prune import PruneConfig, prune
from pruner.task import Task

ROOT = Path(__file__).parent.parent
STORE = ROOT / "runs" / "memory_budgets"
REPORT = ROOT / "docs" / "memory_budgets.md"
MARK = "<!-- figures of `make memory-budgets` -->"
"""What stands behind this line in the report is written anew."""
CHOSEN = ("ResNet-50", "MobileNetV2", "EfficientNet-B0", "RetinaNet, dense part", "EDSR", "small ViT")
SHARES = (0.75, 0.6, 0.5)
PRECISIONS = ("fp32", "fp16", "int8")
PACKAGES = ("torch", "torchvision", "onnx", "onnxruntime", "tensorrt_rtx_cu13", "scipy", "highspy")


@dataclass(frozen=True)
class Cell:
    """One network under one budget; sizes in bytes.

    Attributes:
        network, precision, capability, share: what was asked.
        unpruned: the compiler's figure at full width.
        budget: the share of it.
        figure: the compiler's for the pruned file, or None where the budget was refused.
        workspace, io: of the pruned file.
        compiled: networks compiled on the way.
        importance_kept: share of the magnitudes.
        parameters: share that is left.
        refusal: why there is no plan, or None.
        seconds: of the whole run, on a machine that did other things too.
        gap: how much less magnitude any plan told to be within the budget could lose, as a fraction of what this one
            loses; None without a proof.
    """

    network: str
    precision: str
    capability: str
    share: float
    unpruned: int
    budget: float
    figure: int | None
    workspace: int | None
    io: int | None
    compiled: int
    importance_kept: float | None
    parameters: float | None
    refusal: str | None
    seconds: float
    gap: float | None = None

    @property
    def kept(self) -> bool:
        """Whether the compiler's figure is within the budget."""
        return self.figure is not None and self.figure <= self.budget


def main() -> None:
    """Prune to the budgets that are not stored yet, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=CHOSEN, metavar="NETWORK", help=", ".join(CHOSEN))
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=["fp32", "fp16"])
    parser.add_argument("--capability", default="8.6")
    parser.add_argument("--again", action="store_true", help="prune anew what is stored")
    parser.add_argument("--report", action="store_true", help="only write the report")
    given = parser.parse_args()
    if not given.report:
        for precision in given.precisions:
            for name in given.only or CHOSEN:
                for share in SHARES:
                    path = _path(name, precision, given.capability, share)
                    if given.again or not path.is_file():
                        sys.stderr.write(f"{name}, {precision}, {share:.0%}\n")
                        _write(path, run(name, precision, given.capability, share))
                        write_report()
    write_report()


def run(name: str, precision: str, capability: str, share: float) -> Cell:
    """Prune a network to a share of its own memory."""
    started = datetime.datetime.now(tz=datetime.UTC)
    target = Target("tensorrt-rtx", capability, as_precision(precision))
    with Compiler(target, []) as compiler:
        table = LatencyTable(compiler.fingerprint, [])
    config = PruneConfig(importance="magnitude", normalize="memory", epochs=0, backend="tensorrt-rtx")
    figures: dict[str, Any] = {}
    refusal = None
    with tempfile.TemporaryDirectory(prefix="latprune-") as folder:
        try:
            done = prune(task_of(name), table, memory_fraction=share, config=config, out=Path(folder, "run"))
            figures = done.result
        except BudgetError as error:
            refusal = str(error)
    before, after = figures.get("before", {}), figures.get("after", {})
    unpruned = before.get("total_bytes") or _unpruned(name, target)
    rounds = (figures.get("solver") or {}).get("rounds") or [{}]
    return Cell(
        network=name,
        precision=precision,
        capability=capability,
        share=share,
        unpruned=unpruned,
        budget=share * unpruned,
        figure=after.get("total_bytes"),
        workspace=after.get("workspace_bytes"),
        io=after.get("io_bytes"),
        compiled=(figures.get("memory_from") or {}).get("compiled", 0),
        importance_kept=rounds[-1].get("importance_kept"),
        parameters=after["parameters"] / before["parameters"] if after else None,
        refusal=refusal,
        seconds=(datetime.datetime.now(tz=datetime.UTC) - started).total_seconds(),
        gap=rounds[-1].get("gap"),
    )


def task_of(name: str) -> Task:
    """The network as a task with random data."""

    def model() -> nn.Module:
        return make(name)[0]

    def example_inputs() -> tuple[Tensor]:
        torch.manual_seed(0)
        return (torch.randn(NETWORKS[name][1]),)

    def train_batches() -> Iterator[Tensor]:
        yield example_inputs()[0]

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        return sum(leaf.square().sum() for leaf in tree_leaves(model(batch)))

    return Task(name, model, example_inputs, train_batches=train_batches, loss=loss)


def _unpruned(name: str, target: Target) -> int:
    from profiler.export import flat_arrays, to_onnx

    model, inputs = make(name)
    with Compiler(target, flat_arrays((inputs,))) as compiler:
        return compiler.bound(to_onnx(model, (inputs,))).total_bytes


def _path(name: str, precision: str, capability: str, share: float) -> Path:
    plain = "".join(letter if letter.isalnum() else "-" for letter in name.lower())
    return STORE / f"{plain}_{precision}_{capability}_{share:g}.json"


def _write(path: Path, cell: Cell) -> None:
    STORE.mkdir(parents=True, exist_ok=True)
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    content = {"date": today, "versions": read_versions(PACKAGES), "cell": asdict(cell)}
    write_text(path, json.dumps(content, indent=1) + "\n")


def stored() -> list[dict[str, Any]]:
    """What is stored, network by network."""
    found = [json.loads(path.read_text()) for path in sorted(STORE.glob("*.json"))]
    order = {name: place for place, name in enumerate(CHOSEN)}
    return sorted(
        found,
        key=lambda one: (
            one["cell"]["precision"] != "fp32",
            one["cell"]["precision"],
            order[one["cell"]["network"]],
            -one["cell"]["share"],
        ),
    )


def write_report() -> None:
    """Write the figures behind the report's mark; what stands before it is kept."""
    found = stored()
    text = REPORT.read_text() if REPORT.is_file() else f"# Memory budgets\n\n{MARK}\n"
    lines = _lines(found) if found else []
    write_text(REPORT, text[: text.index(MARK) + len(MARK)] + "\n\n" + "\n".join(lines) + "\n")


def _lines(found: list[dict[str, Any]]) -> list[str]:
    dates = sorted({one["date"] for one in found})
    versions = sorted({f"{name} {version}" for one in found for name, version in one["versions"].items()})
    lines = [f"`make memory-budgets`, {' to '.join(dict.fromkeys([dates[0], dates[-1]]))}; {', '.join(versions)}."]
    for precision in dict.fromkeys(one["cell"]["precision"] for one in found):
        cells = [Cell(**one["cell"]) for one in found if one["cell"]["precision"] == precision]
        refused = [cell for cell in cells if cell.refusal]
        lines += [
            "",
            f"## {precision}, compute capability {cells[0].capability}",
            "",
            f"{sum(cell.kept for cell in cells)} of {len(cells)} within the budget by the compiler's own figure for "
            f"the pruned file, {len(refused)} refused with the constant part named.",
            "",
            "| network | unpruned (MB) | budget (MB) | compiler, pruned (MB) | used | of it workspace | "
            "inputs and outputs, apart | compiled | parameters left | magnitude kept | gap proved |",
            "|---|---|---|---|---|---|---|---|---|---|---|",
        ]
        for cell in cells:
            head = [cell.network, f"{cell.unpruned / 1e6:.2f}", f"{cell.budget / 1e6:.2f} ({cell.share:.0%})"]
            if cell.figure is None:
                rest = ["refused", *["–"] * 7]
            else:
                rest = [
                    f"{cell.figure / 1e6:.2f}",
                    f"{cell.figure / cell.budget:.1%}",
                    f"{(cell.workspace or 0) / 1e6:.2f}",
                    f"{(cell.io or 0) / 1e6:.2f}",
                    str(cell.compiled),
                    f"{cell.parameters:.1%}",
                    f"{cell.importance_kept:.1%}",
                    "–" if cell.gap is None else f"{cell.gap:.1%}",
                ]
            lines.append(f"| {' | '.join([*head, *rest])} |")
        lines += [f"\n{cell.network}, {cell.share:.0%}: {' '.join(str(cell.refusal).split())}" for cell in refused]
    return lines


if __name__ == "__main__":
    try:
        main()
    except LatpruneError as error:
        sys.exit(str(error))
