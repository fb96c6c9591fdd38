"""NVML missing, forbidden, unsupported, or losing the GPU half-way: each ends in words or in None.

No GPU is needed: `fake_nvml.c` is a FAKE of NVIDIA's library, compiled here. It shows what this code makes of NVML's
answers; that real drivers answer so is not shown by it (docs/unverified.md).
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from profiler import nvml

FOLDER = Path(__file__).parent
COMPILER = shutil.which("cc") or shutil.which("gcc")
NOT_SUPPORTED, NO_PERMISSION, DRIVER_NOT_LOADED, LIBRARY_MISMATCH, UNKNOWN = 3, 4, 9, 18, 999

FACTS = """
import dataclasses, json
from profiler.nvml import find_gpu
found = find_gpu()
print(json.dumps(found if isinstance(found, str) else dataclasses.asdict(found)))
"""
WINDOW = """
import dataclasses, json
from profiler.gpu_watch import GpuWatch
from profiler.nvml import open_gpu
with open_gpu({bus!r}) as gpu:
    times = iter((0.0, 0.01))
    watch = GpuWatch(gpu.read, clock=lambda: next(times))
    watch.begin()
    watch.look()
    window = watch.end()
print(json.dumps(dataclasses.asdict(window) | {{"share": window.throttled_share}}))
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the fake library."""
    if COMPILER is None:
        pytest.skip("there is no C compiler to make the fake libnvidia-ml with")
    folder = tmp_path_factory.mktemp("fake")
    out = folder / "libnvidia-ml.so.1"
    subprocess.run([COMPILER, "-shared", "-fPIC", "-o", out, FOLDER / "fake_nvml.c"], check=True)
    return folder


def ask(source: str, library: Path | None, **settings: str) -> Any:
    """Run a script in a process of its own, with the fake library or with none, and read what it prints."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("CUDA_", "FAKE_"))}
    path = {"LD_LIBRARY_PATH": str(library)} if library else {"LD_LIBRARY_PATH": ""}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", source],
        capture_output=True,
        text=True,
        check=False,
        cwd=FOLDER.parent.parent,
        env=clean | path | {key.upper(): value for key, value in settings.items()},
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return json.loads(done.stdout)


def test_a_gpu_tells_what_it_is(library: Path) -> None:
    found = ask(FACTS, library)
    assert (found["name"], found["driver"], found["compute_capability"]) == ("Fake GPU", "999.1", "8.9")
    assert (found["clock_mhz"], found["power_limit_w"]) == (1500.0, 450.0)
    assert (found["ecc"], found["mig"], found["mps"]) == (False, False, False)


def test_what_a_gpu_does_not_support_is_none(library: Path) -> None:
    found = ask(FACTS, library, fake_nvml_answer=str(NOT_SUPPORTED))
    assert found.pop("name") == "Fake GPU"
    assert found.pop("driver") == "999.1"
    assert set(found.values()) == {None}


def test_what_a_user_may_not_ask_is_none(library: Path) -> None:
    window = ask(WINDOW.format(bus=None), library, fake_nvml_answer=str(NO_PERMISSION))
    assert window["failure"] is None
    assert window["looks"] == 3
    told = ("sm_mhz_min", "temperature_c", "power_w", "other_processes", "reasons", "held_by_setting", "share")
    assert {window[name] for name in told} == {None}
    assert window["throttled_us"] == []


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (DRIVER_NOT_LOADED, "not loaded"),
        (NO_PERMISSION, "may not ask"),
        (LIBRARY_MISMATCH, "Restart the machine"),
        (UNKNOWN, "Unknown Error"),
    ],
)
def test_a_library_that_does_not_start_says_why(library: Path, code: int, words: str) -> None:
    found = ask(FACTS, library, fake_nvml_init=str(code))
    assert isinstance(found, str)
    assert words in found


def test_a_machine_without_the_library_says_so(tmp_path: Path) -> None:
    found = ask(FACTS, tmp_path)
    if isinstance(found, dict):
        pytest.skip("this machine has NVIDIA's library")
    assert "libnvidia-ml" in found or "not loaded" in found


def test_missing_bindings_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert nvml.read_gpu() is None
    assert nvml.INSTALL in str(nvml.find_gpu())


def test_a_window_tells_throttling_by_differences(library: Path) -> None:
    window = ask(WINDOW.format(bus="0000:01:00.0"), library)
    assert dict(window["throttled_us"]) == {
        "power cap": 4000.0,
        "software thermal": 0.0,
        "hardware thermal": 0.0,
        "power brake": 0.0,
    }
    assert window["share"] == pytest.approx(0.4)
    assert window["reasons"] == ["power cap"]
    assert (window["sm_mhz_min"], window["sm_mhz_max"]) == (1500.0, 1700.0)
    assert (window["temperature_c"], window["power_w"], window["other_processes"]) == (62.0, 300.0, 1)


def test_fields_that_an_old_driver_does_not_know_are_left_out(library: Path) -> None:
    window = ask(WINDOW.format(bus=None), library, fake_nvml_fields="1")
    assert dict(window["throttled_us"]) == {"power cap": 4000.0}


def test_a_gpu_that_is_lost_half_way_ends_the_window_in_words(library: Path) -> None:
    window = ask(WINDOW.format(bus=None), library, fake_nvml_lost_after="2")
    assert "was lost" in window["failure"]
    assert window["looks"] == 1
    assert window["throttled_us"] == []


def test_a_gpu_that_is_lost_already_is_no_gpu_and_says_why(library: Path) -> None:
    assert "was lost" in ask(FACTS, library, fake_nvml_lost_after="0")


@pytest.mark.parametrize(
    ("visible", "words"), [("", "hides every GPU"), ("-1", "hides every GPU"), ("3", "no GPU 3"), ("GPU-other", "says")]
)
def test_a_gpu_that_cuda_may_not_see_is_not_taken(library: Path, visible: str, words: str) -> None:
    assert words in ask(FACTS, library, cuda_visible_devices=visible)


def test_a_gpu_is_found_by_the_name_that_cuda_sees_it_by(library: Path) -> None:
    assert ask(FACTS, library, cuda_visible_devices="GPU-fake,GPU-other")["uuid"] == "GPU-fake"


def test_a_sharing_daemon_is_seen_by_its_pipe(library: Path, tmp_path: Path) -> None:
    (tmp_path / "control").touch()
    assert ask(FACTS, library, cuda_mps_pipe_directory=str(tmp_path))["mps"] is True


def test_a_jetson_without_nvml_tells_its_model_release_and_power_mode(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    texts = {
        "JETSON_MODEL": "NVIDIA Jetson AGX Orin Developer Kit\0",
        "JETSON_RELEASE": "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref\n",
        "NVPMODEL_STATUS": "pmode:0002\n",
        "NVPMODEL_MODES": "< POWER_MODEL ID=0 NAME=MAXN >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=2 NAME=MODE_30W >\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        monkeypatch.setattr(nvml, name, tmp_path / name)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    found = nvml.read_gpu()
    assert found is not None
    assert found.name == "NVIDIA Jetson AGX Orin Developer Kit"
    assert found.driver == "R35 (release), REVISION: 4.1"
    assert found.power_mode == "2 MODE_30W"
    assert found.compute_capability is None
