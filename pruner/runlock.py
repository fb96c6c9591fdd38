"""One process at a time in a run's directory: the system's file lock, which goes with the process that holds it."""

import contextlib
import json
import logging
import os
import platform
import socket
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

from lut.errors import RunError

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

LOCK = ".latprune.lock"
"""Stands in the directory while a process works there, and says which; one that a killed process left means nothing."""
LONGEST = 4096
TRIES = 1000
"""To make the directory while another process is just removing it; each takes a few microseconds."""


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a run's directory, so that no second process writes into it; made where it is missing.

    The lock is the system's own (`flock`), so that it ends with the process, however that ends. A directory that is
    empty afterwards goes, with those above it that were made for it.

    Raises:
        RunError: another process, or another run in this one, holds it; or the directory cannot be written.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    file = _taken(folder)
    try:
        yield
    finally:
        if file is not None:
            (folder / LOCK).unlink(missing_ok=True)  # while it is held: nobody else's can stand there
            file.close()
        with contextlib.suppress(OSError):  # something stands in it
            for path in made or [folder]:
                path.rmdir()


def _taken(folder: Path) -> FileIO | None:
    """The open lock file, held; None where this system, or the directory's file system, locks no files."""
    if fcntl is None:
        log.warning("%s knows no file locks of this kind: keep other runs out of %s", platform.system(), folder)
        return None
    path = folder / LOCK
    for tries_left in reversed(range(TRIES)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = path.open("ab+", buffering=0)
        except FileNotFoundError as error:  # another process has just removed the directory
            if not tries_left:
                raise RunError(f"{folder} cannot be written: {error}.") from error
            continue
        except FileExistsError as error:
            raise RunError(f"{folder} is a file; --out wants a directory.") from error
        except OSError as error:
            raise RunError(f"{folder} cannot be written: {error}.") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            told = _holder(file)
            file.close()
            raise RunError(
                f"{folder} is being written by another latprune prune{told}. "
                "Wait until it is done, stop it, or give --out another directory."
            ) from error
        except OSError as error:
            file.close()
            path.unlink(missing_ok=True)
            log.warning("%s: its file system locks no files (%s); keep other runs out of it", folder, error)
            return None
        if _is_at(file, path):
            # what a task forks, its data loaders for instance, must not hold the directory beyond this process
            os.register_at_fork(after_in_child=file.close)
            with contextlib.suppress(OSError):  # a full disk: then it is not told who holds it
                file.truncate(0)
                file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
            return file
        file.close()  # who held it before has removed it meanwhile
    raise RunError(f"{folder} is being begun and left by other processes all the time.")


def _is_at(file: FileIO, path: Path) -> bool:
    """Whether an open file is the one that stands at a path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _holder(file: FileIO) -> str:
    """Who holds a lock, in words; nothing where that is not written down yet."""
    file.seek(0)
    try:
        found = json.loads(file.read(LONGEST))
        return f" (process {int(found['pid'])} on {found['host']})"
    except (ValueError, KeyError, TypeError):
        return ""
