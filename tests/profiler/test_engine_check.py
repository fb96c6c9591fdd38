"""A damaged engine is found without a GPU; and what else can be said of a file that is given as one."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lut.errors import BackendError
from profiler.backends import BuildSettings
from profiler.backends.tensorrt import check_version
from profiler.backends.tensorrt_rtx import TensorRtRtx
from profiler.backends.trt_validity import DIAGNOSTICS, check_validity, is_cut_short, looks_like_engine
from profiler.engine_check import check_engine
from tests.profiler.networks import write_conv_net


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("tensorrt_rtx")
    folder = tmp_path_factory.mktemp("engine")
    out = folder / "net.engine"
    TensorRtRtx().build(write_conv_net(folder / "net.onnx", linear=False), out, BuildSettings(("8.6",)))
    return out


def test_a_good_engine_is_well_formed_though_there_is_no_gpu(engine: Path) -> None:
    check = check_engine("tensorrt-rtx", engine)
    assert check.verdict in ("well-formed", "runs here", "does not run here")
    assert check.version.startswith("1.")


@pytest.mark.parametrize("damage", ["cut short", "overwritten", "empty", "an ONNX file", "text"])
def test_a_damaged_engine_is_found(engine: Path, tmp_path: Path, damage: str) -> None:
    content = engine.read_bytes()
    broken = tmp_path / "broken.engine"
    broken.write_bytes(
        {
            "cut short": content[: len(content) // 2],
            "overwritten": b"\0" * 64 + content[64:],
            "empty": b"",
            "an ONNX file": (engine.parent / "net.onnx").read_bytes(),
            "text": b"no engine at all " * 100,
        }[damage]
    )
    check = check_engine("tensorrt-rtx", broken)
    assert check.verdict == "malformed"
    assert all("cut short" in reason or "damaged" in reason for reason in check.reasons)
    assert check.reasons


def test_a_runtime_that_dies_over_a_file_is_said(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(BackendError, match="ended with code 1"):
        check_engine("tensorrt-rtx", engine)


def test_a_layout_that_is_not_known_is_not_judged_by_its_length(engine: Path) -> None:
    content = engine.read_bytes()
    assert looks_like_engine(engine)
    assert not is_cut_short(content)
    assert is_cut_short(content[:-1])
    assert not is_cut_short(content[:8] + b"\x63" + content[9:-1])
    assert not is_cut_short(content[:10])


def test_a_runtime_without_engines_refuses(engine: Path) -> None:
    with pytest.raises(BackendError, match="has no engines"):
        check_engine("onnxruntime", engine)


def make_module(validity: str, bits: int) -> Any:
    """A stand-in for `tensorrt_rtx` on a machine with a GPU; the names of its members are the real module's."""
    kinds = SimpleNamespace(**{name: 1 << place for place, name in enumerate(DIAGNOSTICS)})
    states = SimpleNamespace(VALID="VALID", SUBOPTIMAL="SUBOPTIMAL", INVALID="INVALID")
    runtime = SimpleNamespace(get_engine_validity=lambda blob: (getattr(states, validity), bits))
    return SimpleNamespace(
        __version__="1.7",
        ILogger=type("ILogger", (), {}),
        Runtime=lambda logger: runtime,
        EngineInvalidityDiagnostics=kinds,
        EngineValidity=states,
    )


@pytest.mark.parametrize(
    ("validity", "bits", "verdict", "words"),
    [
        ("VALID", 0, "runs here", ()),
        ("SUBOPTIMAL", 0, "runs here", ()),
        ("INVALID", 0, "well-formed", ()),
        ("INVALID", 0b11, "does not run here", ("another version", "compute capability")),
        ("INVALID", 0b100, "does not run here", ("driver here is too old",)),
        ("INVALID", 0b100001, "malformed", ("another version", "damaged")),
    ],
)
def test_diagnostics_become_words(engine: Path, validity: str, bits: int, verdict: str, words: tuple[str, ...]) -> None:
    check = check_validity(make_module(validity, bits), engine)
    assert check.verdict == verdict
    assert len(check.reasons) == len(words)
    assert all(word in reason for word, reason in zip(words, check.reasons, strict=True))


def test_a_runtime_that_has_no_such_check_says_so(engine: Path) -> None:
    classic = make_module("VALID", 0)
    classic.Runtime = lambda logger: SimpleNamespace()
    assert check_validity(classic, engine).verdict == "not told"


def test_the_diagnostics_are_the_real_modules() -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    assert set(trt.EngineInvalidityDiagnostics.__members__) == set(DIAGNOSTICS)
    assert {"VALID", "SUBOPTIMAL", "INVALID"} <= set(trt.EngineValidity.__members__)


@pytest.mark.parametrize("version", ["10.3.0", "10.13.3.9", "11.4.0.1"])
def test_supported_versions_of_classic_tensorrt_pass(version: str) -> None:
    check_version(version)


@pytest.mark.parametrize("version", ["8.6.1", "10.2.0", "12.0.0", "", "nonsense"])
def test_other_versions_are_refused_with_those_that_are_supported(version: str) -> None:
    with pytest.raises(BackendError, match=r"10\.3 .*to 11\.x.*pip install"):
        check_version(version)
