"""NVIDIA's command, as it is told to users."""

from profiler.trtexec import trtexec_command


def test_the_command_that_reproduces_a_figure_says_single_shot_and_survives_a_shell() -> None:
    command = trtexec_command("trtexec", ["--loadEngine=/tmp/my engine"], graph=True)
    assert command == (
        "trtexec '--loadEngine=/tmp/my engine' --infStreams=1 --exposeDMA --noDataTransfers --useSpinWait "
        "--useCudaGraph --warmUp=200 --duration=3"
    )
    assert "--useCudaGraph" not in trtexec_command("trtexec", [], graph=False)
