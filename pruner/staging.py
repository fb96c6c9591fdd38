"""A deployed file and what belongs beside it, written all together or not at all."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx

from lut.errors import LatpruneError
from pruner.show import ENGINES, FILES

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

UNFINISHED = ".latprune-export-"
"""How the names of folders begin in which files are written before they take their places."""


def check_place(target: Path, run: Path, *, engine: bool) -> None:
    """Make sure, before any work, that a deployed file can have this name.

    Args:
        target: where it is to stand.
        run: the run's directory, whose own files stay as they are.
        engine: whether it is an engine; else it is an ONNX file.

    Raises:
        LatpruneError: there is no such folder, something else stands there, or the name says another kind of file.
    """
    if not target.parent.is_dir():
        raise LatpruneError(f"There is no folder {target.parent} to write {target.name} into.")
    if target.is_dir():
        raise LatpruneError(f"{target} is a folder; --out takes the name of a file.")
    if target.name in FILES and target.parent.resolve() == run.resolve():
        raise LatpruneError(f"{target} is the run's own file. Give --out another name.")
    if engine and target.suffix == ".onnx":
        raise LatpruneError(f"{target.name} would be an engine that is called an ONNX file. Let --out end in .engine.")
    if not engine and target.suffix in ENGINES:
        raise LatpruneError(f"{target.name} would be an ONNX file that is called an engine. Let --out end in .onnx.")


@contextlib.contextmanager
def staging(target: Path) -> Iterator["Staged"]:
    """Give a place on the target's disk to write files in, which is gone at the end, whatever happens.

    Only a process that is killed outright leaves its own; the next one that writes into the same folder removes it.

    Raises:
        OSError: nothing can be written there.
    """
    for left in target.parent.glob(f"{UNFINISHED}*"):
        held = _hold(left)
        if held is not None:
            shutil.rmtree(left, ignore_errors=True)
            os.close(held)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=UNFINISHED) as folder:
        held = _hold(Path(folder))
        try:
            yield Staged(Path(folder), target)
        finally:
            if held is not None:
                os.close(held)


def _hold(folder: Path) -> int | None:
    """Lock a folder for as long as this process lives; None where another holds it, or where folders are not locked."""
    if fcntl is None:
        return None
    try:
        number = os.open(folder, os.O_RDONLY)
    except OSError:  # another process has just removed it
        return None
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(number)
        return None
    return number


class Staged:
    """Files in a folder of their own until all are there; then each takes its place, the deployed one last."""

    def __init__(self, folder: Path, target: Path) -> None:
        """Take an empty folder on the disk of the target."""
        self._target = target
        self.beside = target.with_name(f"{target.name}.onnx")
        self.file, self.json, self._onnx = (folder / name for name in ("file", "json", "onnx"))

    def write_onnx(self, model: onnx.ModelProto) -> Path:
        """Write the ONNX file that the deployed one is made from."""
        self._onnx.write_bytes(model.SerializeToString())
        return self._onnx

    def put(self) -> tuple[str, ...]:
        """Move them; returns the names of those that there are."""
        places = {self.json: self._target.with_name(f"{self._target.name}.json"), self.file: self._target}
        if self._onnx.is_file() and self._target.suffix != ".onnx":
            places = {self._onnx: self.beside, **places}
        for staged, place in places.items():
            staged.replace(place)
        return tuple(place.name for place in places.values())
