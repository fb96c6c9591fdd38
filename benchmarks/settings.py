"""What a stored cell was made with: the day, the processor, versions of packages, a hash of the sources."""

import datetime
import hashlib
import importlib.metadata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from profiler.device import read_cpu

ROOT = Path(__file__).parent.parent
PACKAGES = ("torch", "torchvision", "onnx", "onnxscript", "onnxruntime", "openvino")


@dataclass(frozen=True)
class Setting:
    """What a cell was measured with.

    Attributes:
        date: ISO, of the day.
        processor: as fingerprints call it.
        versions: of the packages that it depends on.
        sources: a hash of the files that it depends on.
    """

    date: str
    processor: str
    versions: dict[str, str]
    sources: str


def hash_files(patterns: Sequence[str], but: Sequence[str] = (), root: Path = ROOT) -> str:
    """Twelve digits that change with the files that match; files named in `but` do not count."""
    mixed = hashlib.sha256()
    for pattern in patterns:
        for path in sorted(root.glob(pattern)):
            if path.name not in but:
                mixed.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return mixed.hexdigest()[:12]


def read_versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of installed packages; "missing" for those that are not there."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "missing"
    return found


def setting_here(sources: str, packages: Sequence[str] = PACKAGES) -> Setting:
    """What a cell made now on this machine is made with; `sources` is the hash of its files."""
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    return Setting(today, read_cpu().name, read_versions(packages), sources)
