"""What a cell of the versus sweep holds, and where it is kept: a JSON file for each stage of each cell.

A cell is (network, runtime, method, budget, seed). It is planned (what to keep, found by measuring), tuned (trained on,
judged, exported) and timed (in a fresh process). Before that, unpruned networks are trained and tables are measured.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.fidelity_store import ROOT
from benchmarks.settings import Setting, hash_files, setting_here
from pruner.atomic import write_text

STORE = ROOT / "runs" / "versus"
PACKAGES = ("torch", "torchvision", "torch-pruning", "onnx", "onnxscript", "onnxruntime", "openvino")
SOURCES = ("lut/**/*.py", "profiler/**/*.py", "pruner/**/*.py", "benchmarks/versus_*.py")
"""The files of this repository that a cell depends on, its report aside."""
NOT_SOURCES = ("versus_figures.py", "versus_report.py", "versus_tables.py", "versus_plot.py")


@dataclass(frozen=True)
class Key:
    """Which cell.

    Attributes:
        network, runtime, method: names.
        budget: percent of the unpruned network's latency.
        seed: of weights, order and everything else.
    """

    network: str
    runtime: str
    method: str
    budget: int
    seed: int

    def __str__(self) -> str:
        return f"{self.network} on {self.runtime}, {self.method}, {self.budget} %, seed {self.seed}"


@dataclass
class Base:
    """An unpruned network.

    Attributes:
        accuracy: on the test pictures; 1 where it is itself that says their classes.
        tuned: the same after as much fine-tuning as pruned networks get, the end of every method's curve.
        images, epochs: of its training; no epochs where it came with its weights.
        parameters: how many.
        seconds: that it took.
        failure: why there is nothing, or None.
    """

    accuracy: float | None = None
    tuned: float | None = None
    images: int = 0
    epochs: int = 0
    parameters: int = 0
    seconds: float = 0.0
    failure: str | None = None


@dataclass
class Table:
    """A measured table.

    Attributes:
        networks: measured for it.
        unpruned_ms: latency of the unpruned network.
        seconds: that it took.
        failure: why there is nothing, or None.
    """

    networks: int = 0
    unpruned_ms: float | None = None
    seconds: float = 0.0
    failure: str | None = None


@dataclass
class Plan:
    """What a method keeps.

    Attributes:
        kept: for each group the choices, as ranges.
        widths: channels kept, by group.
        sizes: of the unpruned groups.
        ratio, noise: latency over the unpruned network's, as the method's own search measured it.
        strength: of a peer, or None.
        trials: for a peer, strength and ratio of each.
        blocks: residual blocks that go wholly.
        solver: of latprune, or None.
        seconds: that it took.
        failure: why there is nothing, or None.
    """

    kept: dict[str, str] = field(default_factory=dict)
    widths: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    ratio: float | None = None
    noise: float | None = None
    strength: float | None = None
    trials: list[list[float]] = field(default_factory=list)
    blocks: list[str] = field(default_factory=list)
    solver: str | None = None
    seconds: float = 0.0
    failure: str | None = None


@dataclass
class Tuned:
    """A pruned network after its training.

    Attributes:
        before: accuracy after pruning, norms measured anew, on the first 2,000 test pictures.
        accuracy: after fine-tuning.
        parameters: how many are left.
        seconds: that it took.
        failure: why there is nothing, or None.
    """

    before: float | None = None
    accuracy: float | None = None
    parameters: int = 0
    seconds: float = 0.0
    failure: str | None = None


@dataclass
class Timed:
    """An exported network in a fresh process of a runtime.

    Attributes:
        ratio, noise: latency over the unpruned network's, by turns.
        ms: its own.
        seconds: that it took.
        failure: why there is nothing, or None.
    """

    ratio: float | None = None
    noise: float | None = None
    ms: float | None = None
    seconds: float = 0.0
    failure: str | None = None


RecordT = TypeVar("RecordT", Base, Table, Plan, Tuned, Timed)
Record = Base | Table | Plan | Tuned | Timed


@dataclass(frozen=True)
class Places:
    """Where everything lies.

    Attributes:
        store: the sweep's folder.
    """

    store: Path

    def base(self, network: str, seed: int) -> Path:
        """Of an unpruned network; its weights and its ONNX file are named alike."""
        return self.store / network / f"unpruned.s{seed}.json"

    def table(self, network: str, runtime: str) -> Path:
        """Of what is told of a table; the table itself ends with `.db`."""
        return self.store / network / f"table.{runtime}.json"

    def cell(self, key: Key, stage: str) -> Path:
        """Of a stage ("plan", "tuned", "timed.RUNTIME"); the run of a method of ours and the ONNX file beside it."""
        name = f"{key.method}.b{key.budget}.s{key.seed}.{stage}.json"
        return self.store / key.network / key.runtime / name

    def run(self, key: Key) -> Path:
        """The run's directory of a method that is ours."""
        return self.cell(key, "run").with_suffix("")

    def onnx(self, key: Key) -> Path:
        """The exported network."""
        return self.cell(key, "tuned").with_suffix(".onnx")


def hash_sources(root: Path = ROOT) -> str:
    """Twelve digits that change with the files that cells depend on."""
    return hash_files(SOURCES, NOT_SOURCES, root)


def read_setting() -> Setting:
    """What a cell made now on this machine is made with."""
    return setting_here(hash_sources(), PACKAGES)


def write_record(path: Path, record: Record, setting: Setting) -> None:
    """Keep a record, in the place of one that may be there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({"setting": asdict(setting), "record": asdict(record)}, indent=1) + "\n")


def read_record(path: Path, kind: type[RecordT]) -> tuple[Setting, RecordT] | None:
    """A stored record, or None where there is none."""
    if not path.exists():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    return Setting(**found["setting"]), _make(kind, found["record"])


def _make(kind: type[RecordT], values: Mapping[str, Any]) -> RecordT:
    """What an older version wrote beside the fields is dropped."""
    known = {item.name for item in fields(kind)}
    return kind(**{name: value for name, value in values.items() if name in known})
