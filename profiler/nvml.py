"""What an NVIDIA GPU tells of itself through NVML (the only file that uses it), and nothing that needs root.

What a GPU does not support is None: on a Jetson that is most of it. What is wrong with NVML itself is said in words.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiler.gpu_watch import GpuReading

THROTTLED_FIELDS = {"power cap": 74, "software thermal": 269, "hardware thermal": 270, "power brake": 271}
"""NVML's fields that count nanoseconds of throttling since the driver was loaded; drivers before 535 know the first."""
INTEGER_VALUES = {1: "uiVal", 2: "ulVal", 3: "ullVal", 4: "sllVal", 5: "siVal", 6: "usVal"}
"""Where a field's value stands, by its type."""
MPS_CONTROL = "control"
MPS_FOLDER = "/tmp/nvidia-mps"
"""Where NVIDIA's daemon puts its pipes when it is not told otherwise."""
JETSON_MODEL = Path("/proc/device-tree/model")
JETSON_RELEASE = Path("/etc/nv_tegra_release")
NVPMODEL_STATUS = Path("/var/lib/nvpmodel/status")
NVPMODEL_MODES = Path("/etc/nvpmodel.conf")

INSTALL = "pip install nvidia-ml-py"
GONE = (
    "NVMLError_GpuIsLost",
    "NVMLError_ResetRequired",
    "NVMLError_Uninitialized",
    "NVMLError_DriverNotLoaded",
    "NVMLError_GpuNotFound",
)
"""Errors after which nothing that the GPU tells can be relied upon."""
WORDS = {
    "NVMLError_LibraryNotFound": (
        "NVIDIA's management library (libnvidia-ml) is not on this machine: there is no NVIDIA driver, or a container "
        "was started without the GPU (docker run --gpus all)."
    ),
    "NVMLError_DriverNotLoaded": (
        "NVIDIA's driver is installed but not loaded, or there is no NVIDIA GPU in this machine. nvidia-smi says more."
    ),
    "NVMLError_LibRmVersionMismatch": (
        "NVIDIA's driver was updated while the old one is still loaded. Restart the machine."
    ),
    "NVMLError_NoPermission": (
        "This user may not ask NVIDIA's driver. Give it access to /dev/nvidia* (on many systems: the group video)."
    ),
    "NVMLError_NotSupported": "NVIDIA's management library does not support this GPU.",
    "NVMLError_GpuIsLost": (
        "The GPU was lost: it fell off the bus or its driver gave it up. Look at dmesg for 'Xid'; restart the machine."
    ),
    "NVMLError_ResetRequired": "The GPU needs a reset after an error. Restart the machine, or nvidia-smi --gpu-reset.",
    "NVMLError_OperatingSystem": "The operating system keeps NVIDIA's library from the GPU (a sandbox or container?).",
}
"""What a user can do about NVML's errors, by the error's name."""


@dataclass(frozen=True)
class GpuFacts:
    """An NVIDIA GPU, as far as it tells; None for what it does not.

    The count of multiprocessors and the size of its cache are CUDA's to tell, not NVML's.

    Attributes:
        name: the maker's.
        driver: its version, or "" on a Jetson without NVML.
        compute_capability: "8.6" …
        clock_mhz: of the multiprocessors, now.
        power_limit_w: that is enforced.
        ecc, mig, mps: whether memory is corrected, the GPU is partitioned, its processes share it through a daemon.
        power_mode: a Jetson's (`nvpmodel`), as "2 MODE_30W".
        uuid: tells this GPU from another of its kind.
    """

    name: str
    driver: str
    compute_capability: str | None = None
    clock_mhz: float | None = None
    power_limit_w: float | None = None
    ecc: bool | None = None
    mig: bool | None = None
    mps: bool | None = None
    power_mode: str | None = None
    uuid: str | None = None


class Gpu:
    """One GPU that NVML knows, for as long as `open_gpu` keeps it open."""

    def __init__(self, pynvml: Any, handle: Any) -> None:
        self._pynvml, self._handle = pynvml, handle

    def facts(self) -> GpuFacts | str:
        """What the GPU is, or in words why it does not tell."""
        try:
            capability = self._ask("nvmlDeviceGetCudaComputeCapability")
            clock = self._ask("nvmlDeviceGetClockInfo", self._pynvml.NVML_CLOCK_SM)
            power = self._ask("nvmlDeviceGetEnforcedPowerLimit")
            ecc, mig = self._ask("nvmlDeviceGetEccMode"), self._ask("nvmlDeviceGetMigMode")
            return GpuFacts(
                name=str(self._pynvml.nvmlDeviceGetName(self._handle)),
                driver=str(self._pynvml.nvmlSystemGetDriverVersion()),
                compute_capability=f"{capability[0]}.{capability[1]}" if capability else None,
                clock_mhz=None if clock is None else float(clock),
                power_limit_w=None if power is None else power / 1000,
                ecc=None if ecc is None else bool(ecc[0]),
                mig=None if mig is None else bool(mig[0]),
                mps=_mps_is_on(self._ask("nvmlDeviceGetMPSComputeRunningProcesses")),
                power_mode=read_power_mode(),
                uuid=self._ask("nvmlDeviceGetUUID"),
            )
        except self._pynvml.NVMLError as error:
            return explain(error)

    def read(self) -> GpuReading:
        """Look at the GPU now; never raises: a GPU that is lost is a reading with `failure`."""
        try:
            clock = self._ask("nvmlDeviceGetClockInfo", self._pynvml.NVML_CLOCK_SM)
            power = self._ask("nvmlDeviceGetPowerUsage")
            warmth = self._ask("nvmlDeviceGetTemperature", self._pynvml.NVML_TEMPERATURE_GPU)
            processes = self._ask("nvmlDeviceGetComputeRunningProcesses")
            return GpuReading(
                throttled_ns=self._throttled_ns(),
                reasons=self._reasons(),
                sm_mhz=None if clock is None else float(clock),
                temperature_c=None if warmth is None else float(warmth),
                power_w=None if power is None else power / 1000,
                processes=None if processes is None else tuple(int(item.pid) for item in processes),
            )
        except self._pynvml.NVMLError as error:
            return GpuReading(failure=explain(error))

    def _throttled_ns(self) -> tuple[tuple[str, int], ...]:
        values = self._ask("nvmlDeviceGetFieldValues", list(THROTTLED_FIELDS.values()))
        if values is None:
            return ()
        return tuple(
            (reason, int(getattr(item.value, INTEGER_VALUES[item.valueType])))
            for reason, item in zip(THROTTLED_FIELDS, values, strict=True)
            if item.nvmlReturn == self._pynvml.NVML_SUCCESS and item.valueType in INTEGER_VALUES
        )

    def _reasons(self) -> int | None:
        """The clocks event reasons; under the name that they had before where the driver is older."""
        found = self._ask("nvmlDeviceGetCurrentClocksEventReasons")
        if found is None:
            found = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons")
        return None if found is None else int(found)

    def _ask(self, function: str, *arguments: Any) -> Any:
        """Call NVML about this GPU, with None for what the GPU, its driver or its user's rights do not give.

        Raises:
            NVMLError: the GPU is gone.
        """
        call = getattr(self._pynvml, function, None)
        if call is None:
            return None
        try:
            return call(self._handle, *arguments)
        except self._pynvml.NVMLError as error:
            if type(error).__name__ in GONE:
                raise
            return None


@contextmanager
def open_gpu(pci_bus_id: str | None = None) -> Iterator[Gpu | str]:
    """Open one GPU through NVML, or say in words why that is not possible.

    Args:
        pci_bus_id: as CUDA tells it ("0000:01:00.0"): CUDA counts GPUs in another order than NVML. Without it the first
            that `CUDA_VISIBLE_DEVICES` names.
    """
    try:
        import pynvml
    except ImportError:
        yield f"Python's bindings of NVIDIA's management library are not installed: {INSTALL}"
        return
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        yield explain(error)
        return
    try:
        yield _find(pynvml, pci_bus_id)
    finally:
        with suppress(pynvml.NVMLError):  # a lost GPU may take the library with it; that has been said by then
            pynvml.nvmlShutdown()


def read_gpu(pci_bus_id: str | None = None) -> GpuFacts | None:
    """Tell the NVIDIA GPU that CUDA would use (or the one at that address), or None where none can be found."""
    found = find_gpu(pci_bus_id)
    return found if isinstance(found, GpuFacts) else None


def find_gpu(pci_bus_id: str | None = None) -> GpuFacts | str:
    """The same; where no GPU can be found, why, and what to do."""
    with open_gpu(pci_bus_id) as gpu:
        if isinstance(gpu, str):
            return read_jetson() or gpu
        return gpu.facts()


def explain(error: Exception) -> str:
    """Say in words what an error of NVML means, and what to do."""
    name = type(error).__name__
    return WORDS.get(name, f"NVIDIA's management library says: {error}.")


def read_jetson() -> GpuFacts | None:
    """Tell a Jetson's GPU where NVML does not (before JetPack 6), or None on another machine."""
    model = _read(JETSON_MODEL).replace("\0", "").strip()
    if "jetson" not in model.lower():
        return None
    release = _read(JETSON_RELEASE).partition("\n")[0].lstrip("# ")
    return GpuFacts(name=model, driver=release.partition(", GCID")[0].strip(), power_mode=read_power_mode())


def read_power_mode() -> str | None:
    """Tell a Jetson's power mode, its number and its name ("2 MODE_30W"), or None on another machine."""
    _, _, number = _read(NVPMODEL_STATUS).strip().rpartition(":")
    if not number.isdigit():
        return None
    for line in _read(NVPMODEL_MODES).splitlines():
        words = dict(word.split("=", 1) for word in line.strip(" <>").split() if "=" in word)
        if line.lstrip().startswith("< POWER_MODEL") and words.get("ID") == str(int(number)):
            return f"{int(number)} {words.get('NAME', '')}".strip()
    return str(int(number))


def _find(pynvml: Any, pci_bus_id: str | None) -> Gpu | str:
    try:
        if pci_bus_id is not None:
            return Gpu(pynvml, pynvml.nvmlDeviceGetHandleByPciBusId(pci_bus_id))
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        first = "0" if visible is None else visible.split(",")[0].strip()
        if first.isdigit():
            if int(first) < pynvml.nvmlDeviceGetCount():
                return Gpu(pynvml, pynvml.nvmlDeviceGetHandleByIndex(int(first)))
            return f"NVIDIA's driver knows no GPU {first}."
        if first.startswith(("GPU-", "MIG-")):
            return Gpu(pynvml, pynvml.nvmlDeviceGetHandleByUUID(first))
        return f"CUDA_VISIBLE_DEVICES={visible} hides every GPU. Unset it."
    except pynvml.NVMLError as error:
        return explain(error)


def _mps_is_on(processes: Any) -> bool | None:
    """Whether a daemon shares the GPU among processes: some are under it, or its pipe is there."""
    if processes:
        return True
    folder = Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", MPS_FOLDER))
    if (folder / MPS_CONTROL).exists():
        return True
    return None if processes is None else False


def _read(path: Path) -> str:
    """A small file's text, or nothing where it is missing or may not be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
