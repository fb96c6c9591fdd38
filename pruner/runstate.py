"""Which stages of a run are finished, so that the same command goes on from there after a crash."""

import contextlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lut.errors import RunError
from pruner.atomic import PARTIAL, write_text
from pruner.rundir import PLAN, WEIGHTS, load_tensors, save_tensors
from pruner.runlock import LOCK

STATE = "state.json"
STAGES = "stages"
REPLACED = "replaced"
"""Folder for the finished run that another replaces, until it is settled that there will be one."""
OWN = (PLAN, WEIGHTS, "model.onnx", "model.onnx.data", "result.json")
"""Files of a run that a new run in the same place may delete, beside those that `RunState.add_file` names."""


class RunState:
    """Which stages of a run are finished, each with a little JSON and, where wanted, tensors.

    The file is replaced after every change, so that a run killed at any moment goes on from its last finished stage.
    """

    def __init__(self, folder: Path, data: dict[str, Any]) -> None:
        """Take what `open_run` found or made; not for other callers."""
        self.folder = folder
        self._data = data

    @property
    def request(self) -> dict[str, Any]:
        """What the run was asked to do."""
        return dict(self._data["request"])

    @property
    def finished(self) -> bool:
        """Whether the whole run is."""
        return bool(self._data["finished"])

    def has(self, stage: str) -> bool:
        """Whether a stage is finished."""
        return stage in self._data["stages"]

    def payload(self, stage: str) -> dict[str, Any]:
        """What a finished stage left as JSON; KeyError where it is not finished."""
        return dict(self._data["stages"][stage]["payload"])

    def tensors(self, stage: str) -> dict[str, Tensor]:
        """What a finished stage left as tensors."""
        file = self._data["stages"][stage]["tensors"]
        return load_tensors(self.folder / STAGES / file) if file else {}

    def complete(
        self, stage: str, payload: Mapping[str, Any] | None = None, tensors: Mapping[str, Tensor] | None = None
    ) -> None:
        """Write down that a stage is finished; the same stage again (a later checkpoint) replaces what it left."""
        before = self._data["stages"].get(stage, {}).get("tensors")
        file = None
        if tensors:
            self._data["revision"] += 1
            file = f"{self._data['revision']:06d}.safetensors"
            (self.folder / STAGES).mkdir(exist_ok=True)
            save_tensors(tensors, self.folder / STAGES / file)
        self._data["stages"][stage] = {"payload": dict(payload or {}), "tensors": file}
        self._write()
        if before:
            (self.folder / STAGES / before).unlink(missing_ok=True)

    def add_file(self, name: str) -> None:
        """Count a file in the directory among the run's own, which `overwrite` may delete."""
        if name not in self._data["files"]:
            self._data["files"].append(name)
            self._write()

    def finish(self) -> None:
        """Write down that the whole run is finished; the stages' tensors are no longer needed and go."""
        self._data["finished"] = True
        for stage in self._data["stages"].values():
            stage["tensors"] = None
        self._write()
        _clear_stages(self.folder)

    def settle(self) -> None:
        """Let the run that this one replaces go: there is a plan now."""
        if (self.folder / REPLACED).is_dir():
            shutil.rmtree(self.folder / REPLACED)

    def discard(self) -> None:
        """Leave no trace of a run that came to nothing: its own files go, and what it was to replace comes back."""
        _clear(self.folder, self._data)
        (self.folder / STATE).unlink(missing_ok=True)
        _bring_back(self.folder)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _write(self) -> None:
        write_text(self.folder / STATE, json.dumps(self._data, indent=1, allow_nan=False) + "\n")


def open_run(out: Path | str, *, overwrite: bool = False, request: Mapping[str, Any]) -> RunState:
    """Begin a run in a directory, or go on with the unfinished one there.

    Args:
        out: made where it is missing.
        overwrite: begin anew where a run stands; files that are not a run's stay, and a finished run is kept aside
            until `RunState.settle`.
        request: what the run is asked to do, in plain JSON; an unfinished run goes on only with an equal one.

    Raises:
        RunError: a finished run, another request, or files that are not ours stand there.
    """
    folder = Path(out)
    wanted = json.loads(json.dumps(dict(request), allow_nan=False))
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file; --out wants a directory.")
    if not (folder / STATE).exists():
        _bring_back(folder)  # stopped between setting a run aside and beginning the next
    data = _read_state(folder)
    begun = data is not None or (folder / PLAN).exists()
    if begun and not overwrite:
        return _go_on(folder, data, wanted)
    if not begun and folder.is_dir():
        names = sorted(path.name for path in folder.iterdir())
        foreign = [name for name in names if name != LOCK and not name.endswith(PARTIAL)]
        if foreign:
            raise RunError(f"{folder} holds {foreign[0]!r} and is no run of latprune. Give --out a new directory.")
    try:
        if begun and (data is None or data["finished"]):
            _set_aside(folder, data)
        elif begun:
            _clear(folder, data)
        folder.mkdir(parents=True, exist_ok=True)
        fresh = {"version": 1, "request": wanted, "finished": False, "stages": {}, "files": [], "revision": 0}
        state = RunState(folder, fresh)
        state._write()
    except OSError as error:
        raise RunError(f"{folder} cannot be written: {error}.") from error
    return state


def _go_on(folder: Path, data: dict[str, Any] | None, wanted: Mapping[str, Any]) -> RunState:
    """The unfinished run that was asked for the same.

    Raises:
        RunError: it is finished, or was asked for something else.
    """
    if data is None or data["finished"]:
        raise RunError(f"{folder} holds a finished run. --overwrite replaces it; another --out keeps it.")
    differences = _differences(data["request"], wanted)
    if differences:
        raise RunError(
            f"{folder} holds an unfinished run that was asked for something else: {differences}. "
            "--overwrite begins anew; another --out keeps it."
        )
    _clear_partials(folder)
    return RunState(folder, data)


def register_file(folder: Path, name: str) -> None:
    """Count a file that was written beside a finished run among the run's own, which `overwrite` may delete."""
    data = _read_state(folder)
    if data is not None:
        RunState(folder, data).add_file(name)


def is_unfinished(folder: Path) -> bool:
    """Whether a run was begun in a directory and is not finished."""
    data = _read_state(folder)
    return data is not None and not data["finished"]


def _read_state(folder: Path) -> dict[str, Any] | None:
    path = folder / STATE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}. --out wants another directory.") from error
    if not isinstance(data, dict) or not {"version", "request", "finished", "stages", "files", "revision"} <= set(data):
        raise RunError(f"{path} is not a run's state. Give --out another directory.")
    return data


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    keys = [key for key in {**then, **now} if then.get(key) != now.get(key)]
    return ", ".join(f"{key} was {then.get(key)!r} and is now {now.get(key)!r}" for key in keys)


def _clear_partials(folder: Path) -> None:
    """Delete what a killed process was just writing; only for who holds the directory."""
    for path in folder.glob(f".*{PARTIAL}"):
        path.unlink(missing_ok=True)


def _clear_stages(folder: Path) -> None:
    stages = folder / STAGES
    if stages.is_dir():
        for path in stages.iterdir():
            if path.suffix == ".safetensors" or path.name.endswith(PARTIAL):
                path.unlink()
        with contextlib.suppress(OSError):
            stages.rmdir()


def _set_aside(folder: Path, data: Mapping[str, Any] | None) -> None:
    """Move a finished run's files, its state last."""
    aside = folder / REPLACED
    aside.mkdir(exist_ok=True)
    for name in [*(data["files"] if data else []), *OWN, STATE]:
        if Path(name).name == name and (folder / name).is_file():
            (folder / name).replace(aside / name)


def _bring_back(folder: Path) -> None:
    """Undo `_set_aside`, where a run is set aside."""
    aside = folder / REPLACED
    if aside.is_dir():
        for path in aside.iterdir():
            path.replace(folder / path.name)
        aside.rmdir()


def _clear(folder: Path, data: Mapping[str, Any] | None) -> None:
    """Delete a run's own files but its state, so that a crash between leaves a run that can be overwritten again."""
    for name in [*(data["files"] if data else []), *OWN]:
        if Path(name).name == name:
            (folder / name).unlink(missing_ok=True)
    _clear_stages(folder)
