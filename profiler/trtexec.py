"""The command line of NVIDIA's own tool that reproduces a figure of ours."""

import shlex
from collections.abc import Sequence

from profiler.gpu_timing import LEAST_WARMUP_S


def trtexec_command(
    tool: str, source: Sequence[str], *, graph: bool, warmup_s: float = LEAST_WARMUP_S, duration_s: float = 3.0
) -> str:
    """The command line of NVIDIA's own tool that reproduces the figure as its "GPU Compute Time", median.

    `--exposeDMA` keeps one inference in flight instead of two (single-shot), `--noDataTransfers` leaves the copies out,
    `--useSpinWait` waits as we do.

    Args:
        tool: `trtexec`.
        source: what to run, as `--loadEngine=FILE`, or `--onnx=FILE` with the settings of the build.
        graph: whether it is launched as a captured graph.
        warmup_s: before it measures.
        duration_s: of measuring.
    """
    how = [
        "--infStreams=1",
        "--exposeDMA",
        "--noDataTransfers",
        "--useSpinWait",
        *(["--useCudaGraph"] if graph else []),
    ]
    return shlex.join([tool, *source, *how, f"--warmUp={warmup_s * 1e3:.0f}", f"--duration={duration_s:g}"])
