"""`--every-gpu-test`: on a machine that is to have a GPU, a test marked `gpu` that did not run is a failure."""

from collections.abc import Iterator

import pytest

OPTION = "--every-gpu-test"


class GpuCount:
    """Counts the tests marked `gpu` that there are, and those that ran."""

    def __init__(self) -> None:
        self.there: set[str] = set()
        self.ran: set[str] = set()

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        if item.get_closest_marker("gpu") is not None:
            self.there.add(item.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and not report.skipped:
            self.ran.add(report.nodeid)

    @property
    def missed(self) -> list[str]:
        return sorted(self.there - self.ran)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if (self.missed or not self.there) and session.exitstatus in (
            pytest.ExitCode.OK,
            pytest.ExitCode.NO_TESTS_COLLECTED,
        ):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(wrapper=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
        yield
        for name in self.missed:
            terminalreporter.write_line(f"NOT RUN: {name}")
        ran = len(self.there) - len(self.missed)
        words = (
            "" if ran == len(self.there) > 0 else " That is a failure: make gpu is for a machine with an NVIDIA GPU."
        )
        terminalreporter.write_line(f"{ran} of {len(self.there)} tests that need a GPU ran.{words}")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(OPTION, action="store_true", help="fail if a test marked gpu was not run")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption(OPTION):
        config.pluginmanager.register(GpuCount())
