"""Photographs that packages bring along, cut into squares and labelled by the unpruned network itself.

Nobody says what is on them: a pruned network learns the logits that the unpruned one gives, and is judged by how often
it finds the class that the unpruned one finds. Training and judging have different photographs.
"""

import importlib.util
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmarks.versus_data import DataMissingError, Pictures, ready
from pruner.atomic import replacing

SHORT = 640
"""To how many pixels the shorter side of a photograph is brought before it is cut."""
LEAST = 0.3
"""The side of the smallest square, as a share of the shorter side; the largest is all of it."""
AT_ONCE = 100
HELD_OUT_SEED = 1_000_000
"""Of the squares by which networks are judged, which are the same for all seeds."""


@dataclass(frozen=True)
class Album:
    """Photographs of one package.

    Attributes:
        package: its name.
        install: what installs it.
        folder: where the files lie, below a Python package where it begins with one, and `{}` for the name.
        training, held_out: names of the files.
    """

    package: str
    install: str
    folder: str
    training: tuple[str, ...]
    held_out: tuple[str, ...]

    def path(self, name: str) -> Path | None:
        """Where a photograph should lie; None where the Python package is not installed."""
        place = Path(self.folder.format(name))
        if place.is_absolute():
            return place
        spec = importlib.util.find_spec(place.parts[0])
        folders = spec.submodule_search_locations if spec else None
        return Path(folders[0], *place.parts[1:]) if folders else None


ALBUMS = (
    Album(
        "mate-backgrounds",
        "apt-get install",
        "/usr/share/backgrounds/mate/nature/{}.jpg",
        ("Blinds", "FreshFlower", "Garden", "GreenMeadow", "RainDrops", "TwoWings", "Wood", "YellowFlower"),
        ("Aqua", "Dune", "LadyBird", "Storm"),
    ),
    Album(
        "plasma-workspace-wallpapers",
        "apt-get install",
        "/usr/share/wallpapers/{}/contents/images/2560x1600.jpg",
        ("BytheWater", "ColdRipple", "DarkestHour", "FallenLeaf", "Kite", "Path", "summer_1am"),
        ("ColorfulCups", "EveningGlow", "Grey", "OneStandsOut"),
    ),
    Album(
        "lomiri-wallpapers-16.04",
        "apt-get install",
        "/usr/share/backgrounds/{}.jpg",
        (
            "Bridge_by_Sander_Klootwijk",
            "Dragonfly_by_Bolly",
            "Picture_0B_by_freespace",
            "Wine_by_Jakkub_Mede",
            "aitzgorri_by_Aitzol_Berasategi",
            "free_by_Peter_Nerlich",
            "life_by_Aitzol_Berasategi",
            "seeding_by_Clements_Engelhardt",
            "sunset_by_Aitzol_Berasategi",
        ),
        (
            "Picture_1A_by_freespace",
            "friends_by_Aitzol_Berasategi",
            "greentock_by_Peter_Nerlich",
            "picosdeeuropa_by_Aitzol_Berasategi",
        ),
    ),
    Album(
        "scikit-image",
        "pip install",
        "skimage/data/{}",
        ("astronaut.png", "camera.png", "coins.png", "motorcycle_left.png"),
        ("chelsea.png", "coffee.png", "rocket.jpg"),
    ),
    Album("scikit-learn", "pip install", "sklearn/datasets/images/{}.jpg", ("china",), ("flower",)),
)
"""Which were sorted by looking at them: no photograph is there twice, in another size, light or cut."""


@dataclass(frozen=True)
class Wanted:
    """Which squares.

    Attributes:
        side: in pixels.
        train, test: how many to train on and to judge by.
    """

    side: int
    train: int
    test: int


def find_photographs() -> tuple[list[Path], list[Path]]:
    """The files to train on and those to judge by.

    Raises:
        DataMissingError: some are not there; says which packages are to be installed.
    """
    training = [(album, album.path(name)) for album in ALBUMS for name in album.training]
    held_out = [(album, album.path(name)) for album in ALBUMS for name in album.held_out]
    absent = dict.fromkeys(album for album, path in [*training, *held_out] if path is None or not path.is_file())
    if absent:
        commands: dict[str, list[str]] = {}
        for album in absent:
            commands.setdefault(album.install, []).append(album.package)
        told = "; ".join(f"{command} {' '.join(packages)}" for command, packages in commands.items())
        raise DataMissingError(f"Photographs are missing that packages of Debian and pip bring along: {told}")
    return [path for _, path in training if path], [path for _, path in held_out if path]


def read_photographs(unpruned: Callable[[], nn.Module], cache: Path, *, wanted: Wanted, seed: int) -> Pictures:
    """Squares of photographs with what the unpruned network makes of them.

    Args:
        unpruned: builds it, in eval mode.
        cache: a file in which they are kept; one that was cut otherwise is replaced.
        wanted: how many squares, and how large.
        seed: of the training squares.

    Raises:
        DataMissingError: photographs or weights are not on this machine.
    """
    training, held_out = find_photographs()
    recipe = json.dumps([asdict(wanted), seed, *([str(path) for path in part] for part in (training, held_out))])
    found = _read(cache, recipe)
    if found is None:
        found = label(
            unpruned(),
            cut_all(training, wanted.side, wanted.train, seed),
            cut_all(held_out, wanted.side, wanted.test, HELD_OUT_SEED),
            seed,
        )
        cache.parent.mkdir(parents=True, exist_ok=True)
        with replacing(cache) as partial:
            save_file(found, partial, metadata={"recipe": recipe})
    return Pictures(
        train=(found["train"], found["logits"]),
        test=(found["test"], found["classes"]),
        mirrored=False,
        shift=0,
        name="photographs",
        drawn=found["drawn"],
    )


@torch.no_grad()
def label(network: nn.Module, train: Tensor, test: Tensor, seed: int) -> dict[str, Tensor]:
    """What a network says of squares: its logits to learn from, its classes to judge by.

    For scores, each training square also gets one class *drawn* from the network's own probabilities. Towards its
    own logits the network has no gradient at all; towards its own best class the loss would tell most where it is
    undecided. With drawn classes the mean of squared gradients is the Fisher information of its own distribution, the
    curvature of the divergence from what it says now:

        KL(p || p_pruned) ~ 1/2 d^T F d,   F = E over x, y ~ p(.|x) of (grad log p(y|x)) (grad log p(y|x))^T

    Source:
        Kunstner, Balles and Hennig, Limitations of the Empirical Fisher Approximation, NeurIPS 2019, arXiv:1905.12558.
    """
    logits, judged = (torch.cat([network(ready(chunk)) for chunk in part.split(AT_ONCE)]) for part in (train, test))
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.multinomial(logits.double().softmax(1), 1, generator=generator).squeeze(1)
    return {"train": train, "logits": logits, "drawn": drawn, "test": test, "classes": judged.argmax(1)}


def cut_all(paths: Sequence[Path], side: int, count: int, seed: int) -> Tensor:
    """Random squares, as many of each photograph, in turns; `[count, 3, side, side]` uint8."""
    draw = np.random.default_rng(seed)
    squares: list[Tensor | None] = [None] * count
    for first, path in enumerate(paths):
        photograph = read_photograph(path)
        for number in range(first, count, len(paths)):
            squares[number] = torch.from_numpy(cut_one(photograph, side, draw)).permute(2, 0, 1)
    return torch.stack([square for square in squares if square is not None])


def read_photograph(path: Path) -> NDArray[np.uint8]:
    """A photograph whose shorter side has at most `SHORT` pixels, `[H, W, 3]`."""
    from PIL import Image

    with Image.open(path) as image:
        image.draft("RGB", (SHORT, SHORT))
        colours = image.convert("RGB")
    scale = SHORT / min(colours.size)
    if scale < 1:
        colours = colours.resize((round(colours.width * scale), round(colours.height * scale)), Image.Resampling.BOX)
    return np.asarray(colours)


def cut_one(photograph: NDArray[np.uint8], side: int, draw: np.random.Generator) -> NDArray[np.uint8]:
    """A random square of a photograph, of random size, every second one mirrored; `[side, side, 3]`."""
    from PIL import Image

    short = min(photograph.shape[:2])
    least = max(LEAST * short, min(side, short))
    size = round(math.exp(draw.uniform(math.log(least), math.log(short))))
    down, across = (int(draw.integers(length - size + 1)) for length in photograph.shape[:2])
    square = Image.fromarray(photograph[down : down + size, across : across + size])
    resized = np.array(square.resize((side, side), Image.Resampling.BICUBIC))
    return resized[:, ::-1].copy() if draw.random() < 0.5 else resized


def _read(cache: Path, recipe: str) -> dict[str, Tensor] | None:
    """What is kept, if it was made in the same way."""
    if not cache.exists():
        return None
    with safe_open(cache, framework="pt") as file:
        if file.metadata()["recipe"] != recipe:
            return None
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
