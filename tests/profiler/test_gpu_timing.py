"""Timing on a simulated GPU whose truth is known; each test also shows that a naive estimate would be wrong."""

from itertools import chain, repeat
from math import inf
from statistics import median

import numpy as np
import pytest

from lut.errors import BackendError
from lut.records import MeasureConfig
from profiler.gpu_summary import P99_SAMPLES, Lap, Pair, keep, settled_from, summarise_builds
from profiler.gpu_timing import is_launch_bound, launches_for, measure_gpu, warm_up
from tests.profiler.simulated_gpu import THROTTLED_SPEED, SimulatedGpu, SimulatedNetwork, noisy

CONFIG = MeasureConfig(warmup_s=0.0, min_time_s=0.5, max_time_s=3.0, min_samples=40, noise_target=0.005)


def naive_ms(network: SimulatedNetwork, laps: int = 100) -> float:
    """What a loop without any care says."""
    return median(network.lap().gpu_ms for _ in range(laps))


def test_a_steady_gpu_is_measured_exactly_and_nothing_has_to_be_said() -> None:
    gpu = SimulatedGpu()
    found = measure_gpu(SimulatedNetwork(gpu), CONFIG, watch=gpu.watch(), clock=gpu.clock)
    assert found.median_ms == pytest.approx(2.0)
    assert found.noise == pytest.approx(0.0, abs=1e-9)
    assert (found.discarded, found.throttled, found.remarks) == (0, 0, ())
    assert found.clocks_mhz == 1500.0
    assert gpu.now < 1.0


def test_a_drift_of_three_percent_divides_out_of_the_ratio_and_is_said() -> None:
    def heating(now: float) -> float:
        return 1.0 - 0.03 * min(now / 2.0, 1.0)

    gpu = SimulatedGpu(speed=heating)
    config = MeasureConfig(warmup_s=0.0, min_time_s=2.0, max_time_s=4.0, noise_target=0.0, max_samples=10_000)
    target = SimulatedNetwork(gpu, 3e-3, factors=noisy(0.003))
    reference = SimulatedNetwork(gpu, 2e-3, factors=noisy(0.003, 1))
    found = measure_gpu(target, config, reference=reference, watch=gpu.watch(), clock=gpu.clock)
    assert found.ratio == pytest.approx(1.5, rel=0.002)
    assert any("slower meanwhile; the ratio" in remark for remark in found.remarks)

    other = SimulatedGpu(speed=heating)
    first, last = SimulatedNetwork(other, 2e-3), SimulatedNetwork(other, 3e-3)
    assert abs(naive_ms(last, 1) / naive_ms(first, 1) / 1.5 - 1) < 0.002
    one_after_the_other = (naive_ms(first, 700), naive_ms(last, 700))
    assert abs(one_after_the_other[1] / one_after_the_other[0] / 1.5 - 1) > 0.01


def test_windows_in_which_clocks_were_held_down_are_dropped_and_counted() -> None:
    held = [(start, start + 0.05) for start in np.arange(0.25, 3.0, 0.13)]
    gpu = SimulatedGpu(throttled=held)
    network = SimulatedNetwork(gpu, factors=noisy(0.002))
    found = measure_gpu(network, CONFIG, watch=gpu.watch(), clock=gpu.clock)
    assert found.median_ms == pytest.approx(2.0, rel=0.003)
    assert found.throttled > 0
    assert max(found.samples_ms) < 2.0 / THROTTLED_SPEED * 0.99
    assert any("held down in" in remark and "dropped" in remark for remark in found.remarks)

    again = SimulatedGpu(throttled=held)
    unwatched = measure_gpu(SimulatedNetwork(again, factors=noisy(0.002)), CONFIG, clock=again.clock)
    assert np.mean(unwatched.samples_ms) > 2.0 * 1.05


def test_a_geforce_that_is_throttled_all_the_time_keeps_its_samples_and_says_so() -> None:
    gpu = SimulatedGpu(throttled=[(0.0, inf)])
    found = measure_gpu(SimulatedNetwork(gpu), CONFIG, watch=gpu.watch(), clock=gpu.clock)
    assert found.median_ms == pytest.approx(2.0 / THROTTLED_SPEED)
    assert len(found.samples_ms) >= CONFIG.min_samples
    assert found.throttled == 0
    assert any("nothing was dropped" in remark for remark in found.remarks)


def test_a_gpu_that_tells_nothing_is_measured_all_the_same() -> None:
    gpu = SimulatedGpu(told=False)
    found = measure_gpu(SimulatedNetwork(gpu), CONFIG, watch=gpu.watch(), clock=gpu.clock)
    assert found.median_ms == pytest.approx(2.0)
    assert found.clocks_mhz is None


def test_a_gpu_that_stops_telling_half_way_is_measured_on_and_that_is_said() -> None:
    gpu = SimulatedGpu(lost_after=0.4)
    found = measure_gpu(SimulatedNetwork(gpu), CONFIG, watch=gpu.watch(), clock=gpu.clock)
    assert found.median_ms == pytest.approx(2.0)
    assert any("stopped telling of itself: GPU is lost" in remark for remark in found.remarks)


def test_other_processes_and_moving_clocks_are_said() -> None:
    gpu = SimulatedGpu(speed=lambda now: 1.0 if int(now * 10) % 2 else 0.99, others=2)
    found = measure_gpu(SimulatedNetwork(gpu), CONFIG, watch=gpu.watch(), clock=gpu.clock)
    said = " ".join(found.remarks)
    assert "2 other processes" in said
    assert "between 1485 and 1500 MHz" in said


@pytest.mark.parametrize("compiled_after", [10, 150, 300])
def test_kernels_that_are_compiled_late_are_warmed_past_or_cut_off(compiled_after: int) -> None:
    """150 and 300 launches of the fallback outlast the warm-up: only the samples themselves show the change."""
    config = MeasureConfig(warmup_s=0.0, min_time_s=1.5, max_time_s=4.0, noise_target=0.002)
    gpu = SimulatedGpu()
    network = SimulatedNetwork(gpu, compiled_after=compiled_after, factors=noisy(0.002))
    found = measure_gpu(network, config, watch=gpu.watch(), clock=gpu.clock)
    assert found.median_ms == pytest.approx(2.0, rel=0.003)
    assert np.mean(found.samples_ms) == pytest.approx(2.0, rel=0.03)
    naive = SimulatedNetwork(SimulatedGpu(), compiled_after=compiled_after)
    assert np.mean([naive.lap().gpu_ms for _ in range(200)]) > 2.0 * 1.04


def test_warming_up_goes_on_while_laps_become_faster_and_gives_up_in_the_end() -> None:
    gpu = SimulatedGpu(speed=lambda now: min(0.5 + now, 1.0))
    laps, settled = warm_up(SimulatedNetwork(gpu), 0.0, clock=gpu.clock)
    assert settled
    assert laps[-1].gpu_ms == pytest.approx(2.0, rel=0.02)

    never = SimulatedGpu(speed=lambda now: np.exp(0.5 * now))
    _, settled = warm_up(SimulatedNetwork(never, gpu_s=0.02), 0.0, clock=never.clock)
    assert not settled


def test_a_launch_bound_network_is_found_and_a_graph_tells_the_gpus_own_time() -> None:
    gpu = SimulatedGpu()
    plain = SimulatedNetwork(gpu, gpu_s=2e-4, enqueue_s=5e-4)
    laps = [plain.lap() for _ in range(9)]
    assert is_launch_bound(laps)
    assert not any(lap.enqueue_ms >= lap.gpu_ms for lap in laps)
    found = measure_gpu(plain, CONFIG, clock=gpu.clock)
    assert found.launch_bound
    assert found.median_ms == pytest.approx(0.505)
    assert any("a CUDA graph avoids that" in remark for remark in found.remarks)
    captured = measure_gpu(SimulatedNetwork(gpu, 2e-4, 5e-4, graph=True), CONFIG, clock=gpu.clock)
    assert not captured.launch_bound
    assert captured.median_ms == pytest.approx(0.2)


def test_what_is_launched_in_two_ways_is_never_compared() -> None:
    gpu = SimulatedGpu()
    with pytest.raises(ValueError, match="graph"):
        measure_gpu(SimulatedNetwork(gpu, graph=True), CONFIG, reference=SimulatedNetwork(gpu), clock=gpu.clock)


def test_outliers_do_not_move_the_median_and_are_counted_but_stay_in_the_99th_percentile() -> None:
    gpu = SimulatedGpu()
    factors = chain.from_iterable(chain(repeat(1.0, 48), [10.0, 10.0]) for _ in range(1000))
    found = measure_gpu(SimulatedNetwork(gpu, factors=factors), CONFIG, clock=gpu.clock)
    assert found.median_ms == pytest.approx(2.0)
    assert found.discarded > 0
    assert max(found.samples_ms) == pytest.approx(2.0)
    assert found.p99_ms == pytest.approx(20.0)


def test_too_few_samples_are_said_and_tell_no_99th_percentile() -> None:
    gpu = SimulatedGpu()
    config = MeasureConfig(warmup_s=0.0, min_time_s=0.0, max_time_s=0.01, min_samples=40)
    found = measure_gpu(SimulatedNetwork(gpu, gpu_s=0.1), config, clock=gpu.clock)
    assert len(found.samples_ms) < P99_SAMPLES
    assert found.p99_ms is None
    assert any(f"only {len(found.samples_ms)} samples" in remark for remark in found.remarks)


def test_noise_that_stays_above_the_target_is_said() -> None:
    gpu = SimulatedGpu()
    config = MeasureConfig(warmup_s=0.0, min_time_s=0.1, max_time_s=0.3, noise_target=1e-4)
    found = measure_gpu(SimulatedNetwork(gpu, factors=noisy(0.05)), config, clock=gpu.clock)
    assert found.noise > config.noise_target
    assert any("noise is" in remark for remark in found.remarks)


def test_noise_counts_that_samples_of_a_block_share_their_clocks() -> None:
    """Levels change from block to block and hardly within: samples are not independent, and the median is less sure."""
    generator = np.random.default_rng(0)
    errors, claimed, naive = [], [], []
    for _ in range(60):
        blocks = [
            tuple(Lap(level * float(np.exp(generator.normal(0, 0.001))), 0.01) for _ in range(10))
            for level in np.exp(generator.normal(0, 0.02, 12))
        ]
        gpu = SimulatedGpu()
        factors = chain.from_iterable([lap.gpu_ms for lap in block] for block in blocks)
        config = MeasureConfig(warmup_s=0.0, min_time_s=inf, max_time_s=inf, max_samples=120, noise_target=0.0)
        network = SimulatedNetwork(gpu, 0.0201, factors=chain(repeat(1.0, 20), factors))
        found = measure_gpu(network, config, clock=gpu.clock)
        errors.append(found.median_ms / 20.1 - 1)
        claimed.append(found.noise)
        samples = np.array(found.samples_ms)
        naive.append(1.2533 * samples.std() / np.sqrt(len(samples)) / np.median(samples))
    truth = float(np.std(errors))
    assert 0.6 < np.median(claimed) / truth < 1.7
    assert np.median(naive) / truth < 0.6


def test_events_that_tell_no_time_are_an_error() -> None:
    gpu = SimulatedGpu()

    class Broken(SimulatedNetwork):
        def lap(self) -> Lap:
            super().lap()
            return Lap(0.0, 0.0)

    with pytest.raises(BackendError, match="events"):
        measure_gpu(Broken(gpu), CONFIG, clock=gpu.clock)


def test_sequences_that_settle_late_are_cut_there_and_steady_or_drifting_ones_are_not() -> None:
    assert settled_from([2.0, 2.0, 2.0, *[1.0] * 9]) == 3
    assert settled_from([1.0] * 12) == 0
    assert settled_from(list(np.linspace(1.03, 1.0, 12))) == 0
    assert settled_from([1.0, 1.0, *[2.0] * 9]) == 0
    assert settled_from([5.0, 1.0]) == 0


def test_settling_comes_after_throttling_so_that_both_are_counted_once() -> None:
    pairs = [Pair(number, (Lap(2.0 if number < 3 else 1.0, 0.1),) * 4) for number in range(12)]
    kept = keep(pairs)
    assert (kept.settling, kept.throttled, len(kept.pairs)) == (3, 0, 9)


def test_small_networks_are_launched_many_times_in_one_graph() -> None:
    assert launches_for(1.0) == 1
    assert launches_for(0.005) == 100
    assert launches_for(0.0) == 200


def test_the_spread_between_builds_is_told_apart_from_the_noise_within() -> None:
    generator = np.random.default_rng(0)

    def builds(between: float, within: float) -> float:
        found = [
            summarise_builds(
                2.0 * (1 + generator.normal(0, between, 3)) * (1 + generator.normal(0, within, 3)), [within] * 3
            )
            for _ in range(400)
        ]
        return float(np.sqrt(np.mean([each.between**2 for each in found])))

    assert builds(0.03, 0.005) == pytest.approx(0.03, rel=0.15)
    assert builds(0.0, 0.01) < 0.01
    one = summarise_builds([2.0], [0.01])
    assert (one.median_ms, one.between, one.within) == (2.0, 0.0, 0.01)
