"""NVIDIA's devices by name, and their compute capability."""

import re

from lut.errors import BackendError

DEVICES: tuple[tuple[str, str], ...] = (
    ("RTX PRO 6000 BLACKWELL", "12.0"),
    ("RTX PRO 5000 BLACKWELL", "12.0"),
    ("RTX PRO 4500 BLACKWELL", "12.0"),
    ("RTX PRO 4000 BLACKWELL", "12.0"),
    ("RTX PRO 2000 BLACKWELL", "12.0"),
    ("RTX 5090", "12.0"),
    ("RTX 5080", "12.0"),
    ("RTX 5070", "12.0"),
    ("RTX 5060", "12.0"),
    ("RTX 5050", "12.0"),
    ("DGX SPARK", "12.1"),
    ("GB10", "12.1"),
    ("RTX 4090", "8.9"),
    ("RTX 4080", "8.9"),
    ("RTX 4070", "8.9"),
    ("RTX 4060", "8.9"),
    ("RTX 6000 ADA", "8.9"),
    ("RTX 5000 ADA", "8.9"),
    ("RTX 4500 ADA", "8.9"),
    ("RTX 4000 ADA", "8.9"),
    ("RTX 2000 ADA", "8.9"),
    ("L40", "8.9"),
    ("L40S", "8.9"),
    ("L4", "8.9"),
    ("RTX 3090", "8.6"),
    ("RTX 3080", "8.6"),
    ("RTX 3070", "8.6"),
    ("RTX 3060", "8.6"),
    ("RTX 3050", "8.6"),
    ("RTX A6000", "8.6"),
    ("RTX A5000", "8.6"),
    ("RTX A4500", "8.6"),
    ("RTX A4000", "8.6"),
    ("RTX A2000", "8.6"),
    ("A40", "8.6"),
    ("A10", "8.6"),
    ("A10G", "8.6"),
    ("A100", "8.0"),
    ("A30", "8.0"),
    ("RTX 2080", "7.5"),
    ("RTX 2070", "7.5"),
    ("RTX 2060", "7.5"),
    ("GTX 1660", "7.5"),
    ("GTX 1650", "7.5"),
    ("QUADRO RTX 8000", "7.5"),
    ("QUADRO RTX 6000", "7.5"),
    ("QUADRO RTX 5000", "7.5"),
    ("QUADRO RTX 4000", "7.5"),
    ("T4", "7.5"),
    ("H100", "9.0"),
    ("H200", "9.0"),
    ("GH200", "9.0"),
    ("ORIN", "8.7"),
    ("XAVIER", "7.2"),
    ("V100", "7.0"),
    ("B200", "10.0"),
    ("THOR", "11.0"),
)
"""Words of a device's name, and its compute capability (developer.nvidia.com/cuda-gpus)."""


def capability_of(device: str) -> str:
    """Tell the compute capability of a device by its name, such as "GeForce RTX 4090" or "8.6" itself.

    Raises:
        BackendError: the name is not known.
    """
    text = device.strip()
    if re.fullmatch(r"\d+\.\d+", text):
        return text
    plain = re.sub(r"[^A-Z0-9]+", " ", text.upper())
    plain = re.sub(r"\b(RTX|GTX)(?=[0-9])", r"\1 ", plain)
    plain = re.sub(r"(?<=[0-9])(TI|SUPER)\b", "", plain)
    spaced = f" {plain} "
    if " DLA " in spaced:
        raise BackendError(
            f"{device!r} is Jetson's accelerator beside the GPU, for which nothing is compiled here. Build there: "
            "trtexec --useDLACore=0 --allowGPUFallback on the file of latprune export RUN/ --backend onnxruntime."
        )
    for name, capability in DEVICES:
        if f" {name} " in spaced:
            return capability
    known = ", ".join(name for name, _ in DEVICES)
    raise BackendError(
        f"The compute capability of {device!r} is not known here. Give it as --compute-capability, e.g. 8.6 "
        f"(developer.nvidia.com/cuda-gpus lists them). Known by name: {known}."
    )
