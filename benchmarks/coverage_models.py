"""The networks that `make coverage` runs: every one that torchvision lists, each with inputs of its kind."""

import copy
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torchvision.ops import FrozenBatchNorm2d

from profiler.outputs import tensors_of

FAMILIES = {
    "classification": torchvision.models,
    "segmentation": torchvision.models.segmentation,
    "detection": torchvision.models.detection,
    "video": torchvision.models.video,
    "optical flow": torchvision.models.optical_flow,
}
"""Each family and the module that lists it; quantized models stand in a module of their own, which is left out."""

LEFT_OUT = {
    "regnet_y_128gf": "645 million parameters: several copies in double precision do not fit",
    "vit_h_14": "632 million parameters: several copies in double precision do not fit",
}
"""What is run only when it is asked for by name, and why."""

FROZEN_NORMS = (
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_resnet50_fpn",
    "fcos_resnet50_fpn",
    "keypointrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn",
    "retinanet_resnet50_fpn",
)
"""Detectors whose pretrained form has frozen BatchNorm in the backbone; without weights, torchvision builds plain."""

DETECTION_PIXELS = 320
BOX_PIXELS, MASK_PIXELS = 7, 14
"""What the heads of region-based detectors take from the feature maps."""


@dataclass(frozen=True)
class Row:
    """One row of the report.

    Attributes:
        name: as the report shows it, unique.
        family: a key of `FAMILIES`.
        builder: the name that `torchvision.models.get_model` takes.
        frozen_norms: the backbone's BatchNorm is frozen, as in torchvision's pretrained detectors.
        left_out: why it is run only when it is named, or None.
    """

    name: str
    family: str
    builder: str
    frozen_norms: bool = False
    left_out: str | None = None


@dataclass(frozen=True)
class Subject:
    """A network with all that a cell runs it on.

    Attributes:
        model: in eval mode, freshly initialised.
        inputs: on which groups are found; the whole program runs on them.
        compared: inputs of the compared part, smallest first; the first on which it runs is taken.
        training: inputs in train mode, smallest first.
        part: gives the part that is compared and exported; it shares the model's modules.
    """

    model: nn.Module
    inputs: tuple[Any, ...]
    compared: tuple[tuple[Any, ...], ...]
    training: tuple[tuple[Any, ...], ...]
    part: Callable[[nn.Module], nn.Module]


class DensePart(nn.Module):
    """A detector of torchvision without anchors and post-processing: backbone and heads.

    Heads that look at regions look at the top left corner of the first feature map instead.
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the dense outputs for pictures of shape `[N, 3, H, W]`."""
        detector: Any = self.detector
        features = detector.backbone(images)
        maps = [features] if isinstance(features, Tensor) else list(features.values())
        if not hasattr(detector, "rpn"):
            return tensors_of(detector.head(maps))
        heads = detector.roi_heads
        found = [detector.rpn.head(maps), heads.box_predictor(heads.box_head(_corner(maps[0], BOX_PIXELS)))]
        for kind in ("mask", "keypoint"):
            if getattr(heads, f"{kind}_head", None) is not None:
                region = _corner(maps[0], MASK_PIXELS)
                found.append(getattr(heads, f"{kind}_predictor")(getattr(heads, f"{kind}_head")(region)))
        return tensors_of(found)


def _corner(features: Tensor, pixels: int) -> Tensor:
    return features[:, :, :pixels, :pixels]


def same(model: nn.Module) -> nn.Module:
    """The whole network: the compared part of all that is no detector."""
    return model


def list_rows() -> tuple[Row, ...]:
    """Every row, family by family in the order of `FAMILIES`, sorted by name."""
    rows: list[Row] = []
    for family, module in FAMILIES.items():
        for name in torchvision.models.list_models(module=module):
            rows.append(Row(name, family, name, left_out=LEFT_OUT.get(name)))
            if name in FROZEN_NORMS:
                rows.append(Row(f"{name} (frozen BatchNorm)", family, name, frozen_norms=True))
    return tuple(rows)


def find_row(name: str) -> Row:
    """The row of this name.

    Raises:
        KeyError: there is none.
    """
    return {row.name: row for row in list_rows()}[name]


def build(row: Row) -> nn.Module:
    """Make the network with random weights, in eval mode."""
    torch.manual_seed(0)
    builder = torchvision.models.get_model_builder(row.builder)
    known = inspect.signature(builder).parameters
    options: dict[str, Any] = {"weights": None}
    if "weights_backbone" in known:
        options["weights_backbone"] = None
    if row.builder in {"googlenet", "inception_v3"}:
        options["init_weights"] = False  # scipy's truncated normal takes a minute, and no value matters here
    if row.family == "detection" and not row.builder.startswith("ssd"):
        options |= {"min_size": DETECTION_PIXELS, "max_size": 2 * DETECTION_PIXELS}
    model: nn.Module = builder(**options).eval()
    if row.frozen_norms:
        freeze_norms(model.get_submodule("backbone"))
    if row.family == "detection":
        let_detect(model)
    return model


def let_detect(detector: Any) -> None:
    """Keep the ten best of fifty candidates whatever their score: with random weights none reaches the usual one.

    What stands behind the detections (masks, key points, post-processing) would otherwise never run.
    """
    last = getattr(detector, "roi_heads", detector)
    last.score_thresh, last.detections_per_img = 0.0, 10
    if last is detector:
        detector.topk_candidates = 50
    else:
        detector.rpn._post_nms_top_n = {"training": 50, "testing": 50}


def freeze_norms(model: nn.Module) -> None:
    """Put torchvision's frozen BatchNorm in the place of each plain one."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, FrozenBatchNorm2d(child.num_features, eps=child.eps))


def input_shapes(row: Row) -> tuple[tuple[int, ...], ...]:
    """Shapes of the inputs on which groups are found."""
    if row.family == "optical flow":
        return ((1, 3, 128, 128), (1, 3, 128, 128))
    if row.family == "video":
        needs_224 = row.builder.startswith(("mvit", "s3d"))  # fixed position tables; a fixed window of 7 x 7 at the end
        pixels = 224 if needs_224 else 64 if row.builder.startswith("swin3d") else 112
        return ((1, 3, 16, pixels, pixels),)
    if row.family == "detection":
        return ((1, 3, DETECTION_PIXELS, DETECTION_PIXELS),)
    pixels = 299 if row.builder == "inception_v3" else 224
    return ((1, 3, pixels, pixels),)


def small_shapes(shapes: Iterable[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    """The shapes with pictures of at most 96 pixels, videos of at most 8 frames of 64; batch and channels stay."""
    return tuple(
        (*shape[:2], *(min(96, s) for s in shape[2:]))
        if len(shape) == 4
        else (*shape[:2], min(8, shape[2]), *(min(64, s) for s in shape[3:]))
        for shape in shapes
    )


def make_inputs(shapes: Iterable[tuple[int, ...]]) -> tuple[Tensor, ...]:
    """Random pictures of these shapes, always the same."""
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


def _twice(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(tree_map(lambda leaf: torch.cat([leaf, leaf]), inputs))


def detection_targets(count: int) -> list[dict[str, Tensor]]:
    """One box in each picture, with mask and key points for the detectors that learn them."""
    mask = torch.zeros(1, DETECTION_PIXELS, DETECTION_PIXELS, dtype=torch.uint8)
    mask[:, 40:200, 30:220] = 1
    points = torch.tensor([[[60.0, 80.0, 1.0]] * 17])
    box = torch.tensor([[30.0, 40.0, 220.0, 200.0]])
    target = {"boxes": box, "labels": torch.tensor([1]), "masks": mask, "keypoints": points}
    return [copy.deepcopy(target) for _ in range(count)]


def make_subject(row: Row) -> Subject:
    """Build a row's network and its inputs."""
    full = make_inputs(input_shapes(row))
    if row.family == "detection":
        image = full[0][0]
        sizes = (128, DETECTION_PIXELS)
        compared = tuple(make_inputs([(1, 3, size, size)]) for size in sizes)
        training = ([image, image.flip(-1)], detection_targets(2))
        return Subject(build(row), ([image],), compared, (training,), DensePart)
    small = make_inputs(small_shapes(input_shapes(row)))
    candidates = (small, full) if small[0].shape != full[0].shape else (full,)
    return Subject(build(row), full, candidates, tuple(map(_twice, candidates)), same)
