"""Asks a runtime about an engine in a process of its own: a damaged file may take the process with it.

Run as `python -m profiler.engine_check BACKEND FILE`, it prints one JSON object.
"""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import profiler
from lut.errors import BackendError, LatpruneError
from profiler.backends import get_backend
from profiler.backends.trt_validity import EngineCheck

TIMEOUT_S = 120.0


def check_engine(backend: str, path: Path, *, timeout_s: float = TIMEOUT_S) -> EngineCheck:
    """Ask the runtime whether it can load an engine.

    Raises:
        BackendError: the runtime is not here, has no engines, or ended or hung over this file.
    """
    command = [sys.executable, "-m", "profiler.engine_check", backend, str(path.resolve())]
    root = Path(profiler.__file__).parent.parent
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        raise BackendError(f"{backend} looked at {path} for {timeout_s:.0f} s and said nothing.") from None
    if done.returncode != 0:
        last = done.stderr.strip().rpartition("\n")[2]
        raise BackendError(
            f"{backend} ended with code {done.returncode} over {path}{f' ({last})' if last else ''}: the engine is "
            "damaged, or the runtime's installation is. Build the engine again."
        )
    found = json.loads(done.stdout.strip().rpartition("\n")[2])
    if "failure" in found:
        raise BackendError(found["failure"])
    return EngineCheck(found["verdict"], tuple(found["reasons"]), found["version"])


def main(backend: str, path: str) -> None:
    """Print what the runtime says of the file."""
    try:
        runtime = get_backend(backend)
        check = getattr(runtime, "check_engine", None)
        if check is None:
            raise BackendError(f"{backend} has no engines. They are run with --backend tensorrt-rtx or tensorrt.")
        found = asdict(check(Path(path)))
    except LatpruneError as error:
        found = {"failure": str(error)}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
