"""The trunk with its first weights is the network they were learnt with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from seg_perception.core.errors import ConfigurationError
from training.initial import find_initial, load_initial, own_name
from training.network import StreetNano, normalised

# Of the original's first blocks.
_STRIDES = (1, 2, 1, 2, 1)


@pytest.fixture(scope="module")
def path() -> Path:
    try:
        return find_initial()
    except ConfigurationError as error:
        pytest.skip(str(error))


def test_each_weight_of_the_trunk_has_its_name(path: Path):
    names = [own_name(name) for name in torch.load(path, weights_only=True)]
    known = [name for name in names if name]
    assert len(known) == len(set(known))
    assert {name for name in StreetNano().state_dict() if name.startswith("stage")} <= set(known)
    assert own_name("_blocks.5._expand_conv.weight") == "stage16.0.expand.0.weight"
    assert own_name("_bn0.running_mean") == "stage4.0.1.running_mean"
    assert own_name("_fc.weight") == own_name("_conv_head.weight") == ""


def test_the_trunk_says_what_the_original_says(path: Path):
    """The original pads strided convolutions at the end only: it sees what ours sees of an image that is moved."""
    weights = torch.load(path, weights_only=True)
    network = StreetNano().eval()
    load_initial(path, network)
    torch.manual_seed(0)
    image = normalised(torch.randint(0, 256, (1, 3, 256, 256)))
    moved = torch.zeros_like(image)
    moved[..., 7:, 7:] = image[..., :-7, :-7]
    with torch.no_grad():
        ours = network.stage8(network.stage4(image))
        theirs = original(weights, moved)
    # Away from the borders, which the padding is part of.
    assert torch.allclose(ours[..., 12:20, 12:20], theirs[..., 12:20, 12:20], atol=1e-3)
    assert ours.std() > 1


def original(weights: dict[str, Tensor], image: Tensor) -> Tensor:
    """The original's first blocks, written down from its description."""

    def step(x: Tensor, conv: str, norm: str, stride: int = 1, active: bool = True) -> Tensor:
        kernel = weights[f"{conv}.weight"]
        size = kernel.shape[2]
        padding = size - stride
        x = nn.functional.pad(x, (padding // 2, padding - padding // 2) * 2)
        x = nn.functional.conv2d(x, kernel, stride=stride, groups=x.shape[1] if kernel.shape[1] == 1 else 1)
        mean, var, scale, shift = (
            weights[f"{norm}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")
        )
        x = nn.functional.batch_norm(x, mean, var, scale, shift, eps=1e-3)
        return x.clamp(0, 6) if active else x

    x = step(image, "_conv_stem", "_bn0", 2)
    for number, stride in enumerate(_STRIDES):
        name = f"_blocks.{number}"
        y = step(x, f"{name}._expand_conv", f"{name}._bn0") if number else x
        y = step(y, f"{name}._depthwise_conv", f"{name}._bn1", stride)
        y = step(y, f"{name}._project_conv", f"{name}._bn2", active=False)
        x = x + y if x.shape == y.shape else y
    return x


def test_another_file_is_refused(tmp_path: Path):
    torch.save({"_conv_stem.weight": torch.zeros(32, 3, 3, 3)}, tmp_path / "other.pth")
    with pytest.raises(ConfigurationError, match=r"other\.pth.*EfficientNet-Lite0"):
        load_initial(tmp_path / "other.pth", StreetNano())


def test_the_trunk_keeps_its_statistics_while_the_rest_learns_them():
    network = StreetNano().train()
    assert not any(module.training for stage in network.trunk for module in stage.modules())
    assert network.pyramid.training
