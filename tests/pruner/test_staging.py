"""Files that are deployed are written whole or not at all, whatever becomes of the process."""

import subprocess
import sys
from pathlib import Path

import pytest

from pruner.staging import UNFINISHED, staging

HOLD = """
import sys, time
from pathlib import Path
from pruner.staging import staging
with staging(Path(sys.argv[1])) as staged:
    staged.file.write_bytes(b"half")
    print("held", flush=True)
    time.sleep(600)
"""


def test_files_take_their_places_together_and_nothing_else_is_left(tmp_path: Path) -> None:
    target = tmp_path / "net.engine"
    with staging(target) as staged:
        staged.file.write_bytes(b"engine")
        staged.json.write_text("{}")
        assert not target.exists()
        staged.put()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.engine", "net.engine.json"]


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with staging(tmp_path / "net.engine") as staged:
            staged.file.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="folders are not locked there")
def test_what_a_killed_process_left_goes_and_what_another_is_writing_stays(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / "net.engine")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        (being_written,) = tmp_path.glob(f"{UNFINISHED}*")
        with staging(tmp_path / "other.engine"):
            assert (being_written / "file").is_file()
        other.kill()
    assert being_written.is_dir()
    with staging(tmp_path / "other.engine"):
        assert not being_written.exists()
    assert not list(tmp_path.iterdir())
