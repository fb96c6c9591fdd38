"""A window of time on a GPU: what its looks say together (readings here are made up, to know the truth)."""

from collections.abc import Callable, Iterator

from profiler.gpu_watch import GpuReading, GpuWatch, GpuWindow, summarise

LOST = GpuReading(failure="The GPU was lost")


def watch(*readings: GpuReading, seconds: float = 1.0) -> GpuWindow:
    """Watch one window in which the GPU tells these readings."""
    following: Iterator[GpuReading] = iter(readings)
    times = iter((0.0, seconds))
    clock: Callable[[], float] = lambda: next(times)  # noqa: E731
    watching = GpuWatch(lambda: next(following), clock=clock)
    watching.begin()
    for _ in readings[1:-1]:
        watching.look()
    return watching.end()


def test_throttling_between_two_looks_is_seen_though_no_look_met_it() -> None:
    calm = GpuReading(throttled_ns=(("power cap", 5_000_000),), reasons=0)
    later = GpuReading(throttled_ns=(("power cap", 255_000_000),), reasons=0)
    window = watch(calm, later)
    assert window.reasons == ()
    assert window.throttled_us == (("power cap", 250_000.0),)
    assert window.throttled_share == 0.25


def test_throttling_before_the_window_is_not_its_own() -> None:
    old = GpuReading(throttled_ns=(("software thermal", 10**15),))
    assert watch(old, old).throttled_share == 0.0


def test_a_counter_that_is_told_only_once_or_runs_backwards_tells_nothing() -> None:
    first = GpuReading(throttled_ns=(("power cap", 9),))
    last = GpuReading(throttled_ns=(("power cap", 3), ("power brake", 70)))
    assert watch(first, last).throttled_us == ()
    assert watch(first, last).throttled_share is None


def test_reasons_overlap_so_the_share_is_of_the_longest() -> None:
    last = GpuReading(throttled_ns=(("power cap", 400_000_000), ("software thermal", 300_000_000)))
    first = GpuReading(throttled_ns=(("power cap", 0), ("software thermal", 0)))
    assert watch(first, last).throttled_share == 0.4


def test_a_gpu_that_tells_nothing_leaves_everything_open() -> None:
    assert watch(GpuReading(), GpuReading()) == GpuWindow(seconds=1.0, looks=2)


def test_clocks_and_heat_are_taken_over_all_looks() -> None:
    window = watch(
        GpuReading(sm_mhz=2100.0, temperature_c=60.0, power_w=120.0),
        GpuReading(sm_mhz=2700.0, temperature_c=71.0, power_w=430.0),
        GpuReading(sm_mhz=2400.0, temperature_c=66.0, power_w=90.0),
    )
    assert (window.sm_mhz_min, window.sm_mhz_max) == (2100.0, 2700.0)
    assert (window.temperature_c, window.power_w) == (71.0, 430.0)


def test_clocks_are_locked_only_if_a_setting_held_them_at_every_look_and_they_stood() -> None:
    held = GpuReading(sm_mhz=1800.0, reasons=0x2)
    assert watch(held, held).locked_clocks_mhz == 1800.0
    assert watch(held, GpuReading(sm_mhz=1800.0, reasons=0x1)).locked_clocks_mhz is None
    assert watch(held, GpuReading(sm_mhz=1815.0, reasons=0x2)).locked_clocks_mhz is None
    assert watch(GpuReading(sm_mhz=1800.0), GpuReading(sm_mhz=1800.0)).locked_clocks_mhz is None


def test_one_of_the_processes_is_this_one() -> None:
    assert watch(GpuReading(processes=()), GpuReading(processes=())).other_processes == 0
    assert watch(GpuReading(processes=(7,)), GpuReading(processes=(7,))).other_processes == 0
    assert watch(GpuReading(processes=(7,)), GpuReading(processes=(7, 8, 9)), GpuReading()).other_processes == 2


def test_a_gpu_that_is_lost_leaves_its_failure_and_what_it_told_before() -> None:
    window = watch(GpuReading(sm_mhz=1800.0, throttled_ns=(("power cap", 1),)), LOST, LOST)
    assert window.failure == "The GPU was lost"
    assert (window.looks, window.sm_mhz_max, window.throttled_us) == (1, 1800.0, ())


def test_a_window_that_never_saw_the_gpu_is_all_open() -> None:
    assert summarise([LOST, LOST], 2.0) == GpuWindow(seconds=2.0, failure="The GPU was lost")
