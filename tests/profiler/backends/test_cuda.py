"""CUDA's calls as far as they go without a GPU, and the words for its errors."""

import pytest

from lut.errors import BackendError
from profiler.backends import cuda
from profiler.nvml import read_gpu

runtime = pytest.importorskip("cuda.bindings.runtime")
without_a_gpu = pytest.mark.skipif(read_gpu() is not None, reason="there is a GPU")


@without_a_gpu
def test_no_driver_is_error_35_in_words() -> None:
    with pytest.raises(BackendError, match=r"error 35, cudaErrorInsufficientDriver\).*no NVIDIA driver.*--gpus all"):
        cuda.open_cuda()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cudaErrorInsufficientDriver", "driver"),
        ("cudaErrorNoDevice", "CUDA_VISIBLE_DEVICES"),
        ("cudaErrorMemoryAllocation", "too little free memory"),
        ("cudaErrorLaunchFailure", "unspecified launch failure"),
    ],
)
def test_every_error_has_its_number_its_name_and_words(name: str, words: str) -> None:
    error = getattr(runtime.cudaError_t, name)
    said = cuda.explain(runtime, error, "cudaMalloc")
    assert f"error {int(error)}, {name}" in said
    assert words in said


def test_every_meaning_is_of_an_error_that_exists() -> None:
    assert all(hasattr(runtime.cudaError_t, name) for name in cuda.MEANINGS)


def test_bindings_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(BackendError, match="pip install cuda-bindings"):
        cuda.open_cuda()


def test_the_cache_is_flushed_by_more_than_it_holds() -> None:
    facts = cuda.CudaFacts(128, 72 * 2**20, "8.9", "", "")
    assert cuda.flush_bytes(facts) == 144 * 2**20
