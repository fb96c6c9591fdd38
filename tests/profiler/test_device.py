"""What the machine tells of itself, and what is said where it tells nothing."""

from pathlib import Path

import pytest

from profiler import device


def test_the_widest_instruction_set_names_the_level() -> None:
    assert device.isa_level(frozenset({"sse2", "avx", "avx2", "fma"})) == "avx2"
    assert device.isa_level(frozenset({"avx2", "fma", "avx512f", "avx512bw"})) == "avx512"
    assert device.isa_level(frozenset({"avx2", "avx512f", "avx512bw", "avx512_vnni"})) == "avx512-vnni"
    assert device.isa_level(frozenset({"asimd", "asimddp"})) == "neon-dot"
    assert device.isa_level(frozenset()) == "unknown"


def test_this_processor_has_a_name_and_cores() -> None:
    cpu = device.read_cpu()
    assert cpu.model
    assert cpu.cores >= 1
    assert str(cpu.cores) in cpu.name


def test_a_machine_without_proc_is_still_described(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(device, "PROC_CPUINFO", tmp_path / "missing")
    monkeypatch.setattr(device, "CACHES", tmp_path / "missing")
    cpu = device.read_cpu()
    assert cpu.model
    assert (cpu.isa, cpu.stepping, cpu.cache_bytes) == ("unknown", "", None)
    assert device.cpu_clock_mhz() is None


def test_an_arm_processor_is_read_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text("processor : 0\nFeatures : fp asimd asimddp i8mm\nCPU implementer : 0x41\nCPU part : 0xd42\n")
    monkeypatch.setattr(device, "PROC_CPUINFO", path)
    cpu = device.read_cpu()
    assert cpu.isa == "neon-i8mm"
    assert cpu.stepping == "implementer 0x41 part 0xd42"
