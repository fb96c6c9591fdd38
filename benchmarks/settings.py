"""What a stored cell was made with: the day, the processor, versions of packages, a hash of the sources it depends on."""

import datetime
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.coverage_store import ROOT, read_versions
from profiler.device import read_cpu

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


def setting_here(sources: str, packages: Sequence[str] = PACKAGES) -> Setting:
    """What a cell made now on this machine is made with; `sources` is the hash of its files."""
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    return Setting(today, read_cpu().name, read_versions(packages), sources)
