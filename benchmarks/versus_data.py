"""Pictures that networks of the versus sweep are trained on and judged by: what they are, Fashion-MNIST, and digits.

Xiao et al., Fashion-MNIST, arXiv:1708.07747: 60,000 pictures of 28 × 28 pixels to train on and 10,000 to judge by.
"""

import gzip
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package `dataset-fashion-mnist` puts the files."""
DOWNLOADED = Path("data", "FashionMNIST", "raw")
"""Where torchvision's download puts them, below the store."""
MEAN, DEVIATION = 0.2860, 0.3530
"""Of the training pixels in 0 … 1."""
SHIFT = 2
"""By how many pixels a training picture is moved at most, in both directions; it may also be mirrored."""

BYTE_MEAN, BYTE_DEVIATION = 127.0, 128.0
"""What is done to pictures that are kept as bytes: as EfficientNet-Lite was trained."""

Batch = tuple[Tensor, Tensor]


class DataMissingError(Exception):
    """Pictures, or trained weights, are not on this machine."""


@dataclass(frozen=True)
class Pictures:
    """Pictures with what a network is to say of them.

    Attributes:
        train: to train on, `[N, C, H, W]` (float32 around zero, or bytes; see `ready`), and their classes, `[N]` int64,
            or logits to learn from, `[N, classes]`.
        test: to judge by, with classes; nothing is chosen by them.
        mirrored: whether a mirrored picture is as good as the picture, and each second is to be.
        name: of the data.
        shift: by how many pixels a training picture is moved at most.
        drawn: where `train` has logits, the classes towards which channels are scored.
    """

    train: Batch
    test: Batch
    mirrored: bool
    name: str
    shift: int = SHIFT
    drawn: Tensor | None = None

    def first(self, count: int, *, scoring: bool = False) -> Batch:
        """The first pictures of the training set, which is in no order; for scoring with classes."""
        images, targets = self.train
        if scoring and self.drawn is not None:
            targets = self.drawn
        return images[:count], targets[:count]


def ready(images: Tensor) -> Tensor:
    """Pictures as a network takes them: bytes become numbers around zero, all else stays."""
    return (images.float() - BYTE_MEAN) / BYTE_DEVIATION if images.dtype == torch.uint8 else images


def read_fashion(store: Path, *, side: int = 28) -> Pictures:
    """Fashion-MNIST from Debian's package, or from torchvision's download in the store.

    Args:
        store: folder of the sweep.
        side: of the pictures; what is more than 28 is a border of zeros.

    Raises:
        DataMissingError: it is in neither place; says how to get it.
    """
    folder = next((place for place in (DEBIAN, store / DOWNLOADED) if has_all(place)), None)
    if folder is None:
        raise DataMissingError(
            f"Fashion-MNIST is neither in {DEBIAN} nor in {store / DOWNLOADED}.\n"
            "On Debian or Ubuntu: apt-get install dataset-fashion-mnist. Elsewhere, with a network: make versus "
            'VERSUS="--download" has torchvision fetch it.'
        )
    train, test = (_read(folder, part, side) for part in ("train", "test"))
    return Pictures(train, test, mirrored=True, name="Fashion-MNIST")


def has_all(folder: Path) -> bool:
    """Whether all four files are in a folder."""
    return all((folder / name).is_file() for names in FILES.values() for name in names)


def download(store: Path) -> None:
    """Have torchvision fetch the files into the store, unless they are there."""
    from torchvision.datasets import FashionMNIST

    FashionMNIST(store / DOWNLOADED.parts[0], download=True)


def read_digits() -> Pictures:
    """scikit-learn's handwritten digits, 8 × 8 pixels: 1,347 to train on and 450 to judge by."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    images = torch.from_numpy(digits.images[order] / 8 - 1).float().unsqueeze(1)
    labels = torch.from_numpy(digits.target[order]).long()
    return Pictures((images[450:], labels[450:]), (images[:450], labels[:450]), mirrored=False, name="digits")


def read_idx(path: Path) -> NDArray[np.uint8]:
    """An array of bytes from a gzipped IDX file.

    Raises:
        ValueError: it is no such file.
    """
    data = gzip.decompress(path.read_bytes())
    if data[:3] != b"\0\0\x08":
        raise ValueError(f"{path.name} is no IDX file of bytes: it begins with {data[:4]!r}.")
    start = 4 + 4 * data[3]
    shape = np.frombuffer(data[4:start], dtype=">u4")
    if len(data) - start != math.prod(int(length) for length in shape):
        raise ValueError(f"{path.name} is not whole: {len(data) - start} bytes of {shape.tolist()}.")
    return np.frombuffer(data, dtype=np.uint8, offset=start).reshape([int(length) for length in shape])


def _read(folder: Path, part: str, side: int) -> Batch:
    images, labels = (read_idx(folder / name) for name in FILES[part])
    pixels = torch.from_numpy(images.astype(np.float32) / 255).unsqueeze(1)
    border = (side - pixels.shape[-1]) // 2
    padded = functional.pad(pixels, (border,) * 4) if border > 0 else pixels
    return (padded - MEAN) / DEVIATION, torch.from_numpy(labels.astype(np.int64))


@dataclass(frozen=True)
class Batches:
    """One epoch of shuffled training pictures; another order each time, as the global generator says.

    Attributes:
        pictures: of which the first `count` are used.
        count: how many.
        size: of a batch.
        plain: in order and as they are, with classes, for scores.
    """

    pictures: Pictures
    count: int
    size: int
    plain: bool = False

    def __len__(self) -> int:
        return math.ceil(self.count / self.size)

    def __iter__(self) -> Iterator[Batch]:
        pictures = self.pictures
        images, targets = pictures.first(self.count, scoring=self.plain)
        order = torch.arange(len(targets)) if self.plain else torch.randperm(len(targets))
        for chosen in order.split(self.size):
            batch = ready(images[chosen])
            if not self.plain and (pictures.shift or pictures.mirrored):
                batch = moved(batch, mirror=pictures.mirrored, shift=pictures.shift)
            yield batch, targets[chosen]


def moved(images: Tensor, *, mirror: bool, shift: int = SHIFT) -> Tensor:
    """Move each picture, of one channel, by its own few pixels, and mirror each second on average."""
    count, _, height, width = images.shape
    most = min(shift, height // 8)
    padded = functional.pad(images, (most,) * 4, value=float(images.min()))
    down, across = torch.randint(2 * most + 1, (2, count, 1))
    rows = (torch.arange(height) + down)[:, :, None]
    columns = torch.arange(width) + across
    if mirror:
        columns = torch.where(torch.rand(count, 1) < 0.5, columns, columns.flip(1))
    return padded[torch.arange(count)[:, None, None], 0, rows, columns[:, None, :]].unsqueeze(1)
