"""Public networks are built without a download, and are fed what they take: a batch, a list of pictures, two frames."""

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lut.errors import TaskError
from pruner.task import load_task

catalogue = pytest.importorskip("torchvision.models")

SMALL_DETECTOR = "torchvision:ssdlite320_mobilenet_v3_large"


@pytest.fixture
def _no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(url: str, *_args: object, **_options: object) -> None:
        raise AssertionError(f"downloads {url}")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", refuse)


def shapes_of(spec: str, text: str) -> Any:
    """Shapes of a public network's inputs, nested as the network is given them."""
    given = load_task(spec, input_shape=text).inputs()
    return [tuple(item.shape) if isinstance(item, Tensor) else [tuple(x.shape) for x in item] for item in given]


@pytest.mark.usefixtures("_no_download")
@pytest.mark.parametrize("name", ["fasterrcnn_mobilenet_v3_large_320_fpn", "lraspp_mobilenet_v3_large"])
def test_a_network_with_a_backbone_is_built_without_a_download(name: str) -> None:
    task = load_task(f"torchvision:{name}", input_shape="3x320x320")
    assert isinstance(task.build(), nn.Module)


def test_no_builder_of_torchvision_is_left_to_choose_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    builder_of = catalogue.get_model_builder
    asked: dict[str, Any] = {}

    def stand_in(name: str) -> Any:
        def build(**arguments: Any) -> nn.Module:
            asked[name] = arguments
            return nn.Identity()

        build.__signature__ = inspect.signature(builder_of(name))  # type: ignore[attr-defined]
        return build

    monkeypatch.setattr(catalogue, "get_model_builder", stand_in)
    for name in catalogue.list_models():
        load_task(f"torchvision:{name}", input_shape="3x64x64").build()
        weights = {key for key in inspect.signature(builder_of(name)).parameters if key.startswith("weights")}
        assert asked[name] == dict.fromkeys(weights)


def test_a_detection_network_is_given_a_list_of_pictures() -> None:
    assert shapes_of(SMALL_DETECTOR, "3x320x320") == [[(3, 320, 320)]]
    assert shapes_of(SMALL_DETECTOR, "3x320x320,3x200x300") == [[(3, 320, 320), (3, 200, 300)]]
    task = load_task(SMALL_DETECTOR, input_shape="3x64x64")
    with torch.no_grad():
        (found,) = task.build()(*task.inputs())
    assert "boxes" in found


def test_a_batch_for_a_detection_network_is_refused_and_the_way_to_give_it_said() -> None:
    with pytest.raises(TaskError, match="3x320x320") as caught:
        load_task(SMALL_DETECTOR, input_shape="1x3x320x320")
    assert "1x3x320x320" in str(caught.value)


def test_other_networks_are_given_one_tensor_a_shape() -> None:
    assert shapes_of("torchvision:raft_small", "1x3x128x128,1x3x128x128") == [(1, 3, 128, 128), (1, 3, 128, 128)]
    assert shapes_of("torchvision:r3d_18", "1x3x8x32x32") == [(1, 3, 8, 32, 32)]


@pytest.mark.parametrize(
    ("name", "example"),
    [
        ("r3d_18", "1x3x16x224x224"),
        ("fcn_resnet50", "1x3x224x224"),
        ("raft_small", "1x3x128x128,1x3x128x128"),
        ("ssd300_vgg16", "3x320x320"),
    ],
)
def test_a_network_that_does_not_classify_asks_for_a_shape_of_its_kind(name: str, example: str) -> None:
    with pytest.raises(TaskError, match="--input") as caught:
        load_task(f"torchvision:{name}")
    assert str(caught.value).endswith(f"such as --input {example}.")
