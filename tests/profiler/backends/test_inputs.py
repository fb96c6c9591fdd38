"""Inputs that stand in for real ones: random, in range, and the same again; and those that are given by name."""

import numpy as np
import pytest

from lut.errors import BackendError
from profiler.backends.inputs import name_feeds, random_inputs


def test_inputs_are_random_in_a_sane_range_and_the_same_for_the_same_seed() -> None:
    wanted: list[tuple[str, type[np.generic], tuple[int, ...]]] = [
        ("image", np.float32, (1, 3, 8, 8)),
        ("bytes", np.uint8, (100,)),
        ("signed", np.int8, (100,)),
        ("tokens", np.int64, (100,)),
        ("mask", np.bool_, (100,)),
    ]
    made, again = random_inputs(wanted, 3), random_inputs(wanted, 3)
    for name, dtype, shape in wanted:
        assert made[name].dtype == dtype
        assert made[name].shape == shape
        assert np.array_equal(made[name], again[name])
    assert set(made["tokens"].tolist()) == {0, 1}
    assert made["signed"].min() < 0 <= made["bytes"].min()
    assert not np.array_equal(made["image"], random_inputs(wanted, 4)["image"])


def test_inputs_in_order_get_their_names_and_wrong_ones_are_refused() -> None:
    one, two = np.zeros(1), np.ones(1)
    assert name_feeds([one, two], ["a", "b"]) == name_feeds({"b": two, "a": one}, ["a", "b"]) == {"a": one, "b": two}
    for feeds in ([one], [one, two, one], {"a": one, "c": two}, []):
        with pytest.raises(BackendError, match="inputs are a, b"):
            name_feeds(feeds, ["a", "b"])
