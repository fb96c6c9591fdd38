"""Where cells of the coverage sweep are kept: a JSON file for each network and side, with what it was measured with."""

import datetime
import json
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Generic, TypeVar

from benchmarks.coverage_records import Ours, Peer
from benchmarks.settings import ROOT, hash_files, read_versions
from profiler.device import read_cpu
from pruner.atomic import write_text

STORE = ROOT / "runs" / "coverage"
SIDES = ("ours", "peer")

PACKAGES = {"ours": ("torch", "torchvision", "onnx", "onnxscript", "onnxruntime"), "peer": ("torch", "torch-pruning")}
"""By side, the packages that a cell depends on."""

SOURCES = {
    "ours": ("lut/**/*.py", "profiler/**/*.py", "benchmarks/coverage_cell.py", "benchmarks/coverage_m*.py"),
    "peer": ("benchmarks/coverage_peer.py", "benchmarks/coverage_m*.py"),
}
"""By side, the files of this repository that a cell depends on."""

CellT = TypeVar("CellT", Ours, Peer)


@dataclass(frozen=True)
class Setting:
    """What a cell was measured with.

    Attributes:
        date: ISO, of the day.
        processor: as fingerprints call it.
        threads: that PyTorch was given.
        jobs: how many networks were measured at the same time.
        versions: of the packages that the cell depends on.
        sources: a hash of the files of this repository that it depends on.
    """

    date: str
    processor: str
    threads: int
    jobs: int
    versions: dict[str, str]
    sources: str


@dataclass(frozen=True)
class Stored(Generic[CellT]):
    """A cell on disk."""

    name: str
    setting: Setting
    cell: CellT


def hash_sources(side: str, root: Path = ROOT) -> str:
    """Twelve digits that change with the files that a side's cells depend on."""
    return hash_files(SOURCES[side], root=root)


def read_setting(side: str, *, threads: int, jobs: int) -> Setting:
    """What a cell measured now on this machine is measured with."""
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    return Setting(today, read_cpu().name, threads, jobs, read_versions(PACKAGES[side]), hash_sources(side))


def path_of(store: Path, name: str, side: str) -> Path:
    """The file of a cell."""
    return store / f"{re.sub(r'[^a-z0-9_]+', '-', name.lower()).strip('-')}.{side}.json"


def write_cell(store: Path, name: str, setting: Setting, cell: Ours | Peer) -> None:
    """Keep a cell, in the place of one that may be there."""
    store.mkdir(parents=True, exist_ok=True)
    side = "ours" if isinstance(cell, Ours) else "peer"
    text = json.dumps({"name": name, "setting": asdict(setting), "cell": asdict(cell)}, indent=1)
    write_text(path_of(store, name, side), text + "\n")


def make_cell(kind: type[CellT], values: dict[str, Any]) -> CellT:
    """A record from JSON; what an older version measured beside it is dropped."""
    known = {field.name for field in fields(kind)}
    return kind(**{key: value for key, value in values.items() if key in known})


def read_cell(store: Path, name: str, kind: type[CellT]) -> Stored[CellT] | None:
    """The cell of a network, or None where there is none."""
    path = path_of(store, name, "ours" if kind is Ours else "peer")
    if not path.exists():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    return Stored(found["name"], Setting(**found["setting"]), make_cell(kind, found["cell"]))
