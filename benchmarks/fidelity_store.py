"""What a cell of the fidelity sweep holds, and where it is kept: a JSON file for each network, runtime and kind."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.settings import ROOT, Setting, hash_files, setting_here
from pruner.atomic import write_text

STORE = ROOT / "runs" / "fidelity"
SOURCES = ("lut/**/*.py", "profiler/**/*.py", "benchmarks/fidelity_*.py", "benchmarks/isolated.py")
"""The files of this repository that a cell depends on, its report aside."""
NOT_SOURCES = (
    "fidelity_again.py",
    "fidelity_report.py",
    "fidelity_figures.py",
    "fidelity_summary.py",
    "fidelity_plot.py",
)

Values = dict[str, Any]


@dataclass
class Vector:
    """One held-out width vector: what was predicted of it, and what was measured after.

    Attributes:
        kind: "free", "edge" or "plan".
        widths: channels kept, by group.
        ms, low_ms, high_ms: our prediction, what the runtime makes of the units being known (compiled).
        guessed_ms: our prediction where that is guessed.
        guessed: units of which it was guessed in `ms` too.
        passes_ms: the whole network as measured, once in each pass, in the table's scale.
        peers_ms: predictions of the peers, by name.
    """

    kind: str
    widths: dict[str, int]
    ms: float
    low_ms: float
    high_ms: float
    guessed_ms: float
    guessed: int
    passes_ms: list[float] = field(default_factory=list)
    peers_ms: dict[str, float] = field(default_factory=dict)


@dataclass
class Profiled:
    """What profiling did.

    Attributes:
        seconds: in all, from the module to the finished table.
        measured, reused, failed, rows: networks and unit rows, as in `ProfileReport`.
        error, error_free: of the last predictions while profiling.
        stopped_because: in words.
    """

    seconds: float
    measured: int
    reused: int
    failed: int
    rows: int
    error: float | None
    error_free: float | None
    stopped_because: str


@dataclass
class Isolated:
    """Units cut out of networks and timed alone.

    Attributes:
        seconds: that it took.
        networks: at the widths of how many networks all units were measured.
        units: distinct ones measured.
        failed: distinct ones that could not be.
        missing: units of the network that have no nodes of their own, or no time.
        sums: for each of these networks: sum of the isolated units' times, of those in place, and the whole, in ms.
        reason: why the first of those that failed did, or None.
    """

    seconds: float = 0.0
    networks: int = 0
    units: int = 0
    failed: int = 0
    missing: int = 0
    sums: list[list[float]] = field(default_factory=list)
    reason: str | None = None


@dataclass
class Cell:
    """A network on a runtime.

    Attributes:
        profiled: from an empty table.
        vectors: the held-out ones.
        isolated: the units that were measured alone.
        units, groups: of the network.
        unpruned_ms: of the unpruned network as profiling measured it.
        again_ms: for some of the networks that profiling measured: what it found, and what was found again between the
            two passes over the held-out ones. It shows whether both are in one scale.
        stages_s: seconds by stage.
        predicted_with: the sources that predicted the vectors anew from the same table, or "".
        failure: why there is nothing, or None.
    """

    profiled: Profiled | None = None
    vectors: list[Vector] = field(default_factory=list)
    isolated: Isolated | None = None
    units: int = 0
    groups: int = 0
    unpruned_ms: float | None = None
    again_ms: list[list[float]] = field(default_factory=list)
    stages_s: dict[str, float] = field(default_factory=dict)
    predicted_with: str = ""
    failure: str | None = None


@dataclass
class Transfer:
    """A network profiled into a table that has the rows of others.

    Attributes:
        others: names of the networks whose rows were there.
        profiled: what was added.
        families: of this network; `known` of them were in the others' tables.
        known: how many families were priced already.
        failure: why there is nothing, or None.
    """

    others: list[str] = field(default_factory=list)
    profiled: Profiled | None = None
    families: int = 0
    known: int = 0
    failure: str | None = None


@dataclass
class Reuse:
    """How well a network is predicted while little of it is measured.

    Attributes:
        others: names of the networks whose rows were beside.
        after: so many networks of its own.
        alone: the mean error over the cell's vectors from these alone; None while a family has no row.
        beside: the same with the rows of the others.
        failure: why there is nothing, or None.
    """

    others: list[str] = field(default_factory=list)
    after: list[int] = field(default_factory=list)
    alone: list[float | None] = field(default_factory=list)
    beside: list[float | None] = field(default_factory=list)
    failure: str | None = None


CellT = TypeVar("CellT", Cell, Transfer, Reuse)
AnyCell = Cell | Transfer | Reuse
Kind = type[Cell] | type[Transfer] | type[Reuse]
ENDINGS: dict[Kind, str] = {Cell: "", Transfer: ".transfer", Reuse: ".reuse"}


def hash_sources(root: Path = ROOT) -> str:
    """Twelve digits that change with the files that cells depend on."""
    return hash_files(SOURCES, NOT_SOURCES, root)


def read_setting() -> Setting:
    """What a cell made now on this machine is made with."""
    return setting_here(hash_sources())


def path_of(store: Path, network: str, runtime: str, kind: Kind = Cell) -> Path:
    """The file of a cell, or of what was made of it."""
    return store / f"{network}.{runtime}{ENDINGS[kind]}.json"


def table_of(store: Path, network: str, runtime: str) -> Path:
    """The table that a cell has filled."""
    return store / f"{network}.{runtime}.db"


def write_cell(path: Path, cell: AnyCell, setting: Setting) -> None:
    """Keep a cell, in the place of one that may be there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({"setting": asdict(setting), "cell": asdict(cell)}, indent=1) + "\n")


def read_cell(path: Path, kind: type[CellT]) -> tuple[Setting, CellT] | None:
    """A stored cell, or None where there is none."""
    if not path.exists():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    return Setting(**found["setting"]), make_cell(kind, found["cell"])


def make_cell(kind: type[CellT], values: Values) -> CellT:
    """A record from JSON."""
    made = _make(kind, values)
    if isinstance(made, Cell | Transfer) and made.profiled is not None:
        made.profiled = _make(Profiled, values["profiled"])
    if isinstance(made, Cell):
        made.vectors = [_make(Vector, vector) for vector in values["vectors"]]
        made.isolated = None if values["isolated"] is None else _make(Isolated, values["isolated"])
    return made


def _make(kind: type[Any], values: Mapping[str, Any]) -> Any:
    """What an older version wrote beside the fields is dropped."""
    known = {item.name for item in fields(kind)}
    return kind(**{key: value for key, value in values.items() if key in known})
