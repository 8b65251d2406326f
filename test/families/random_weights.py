"""Makes networks with random weights informative: varied scores, boxes and masks, as a trained network has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import nn

# For all channels, or for each.
Level: TypeAlias = float | torch.Tensor


def enliven(network: nn.Module, run: Callable[[], Any], spread: Mapping[nn.Module, tuple[Level, Level]]) -> None:
    """Set the statistics of batch normalisations from data, and the mean and spread of some layers' outputs.

    With random weights, signals die out on their way through a deep network, and all outputs are nearly equal.

    Args:
        network: in evaluation mode, changed in place.
        run: runs it on images.
        spread: mean and standard deviation that each channel of the output of a convolution or linear layer shall have.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    with torch.no_grad():
        run()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
    seen: dict[nn.Module, torch.Tensor] = {}
    hooks = [layer.register_forward_hook(lambda layer, _, output: seen.update({layer: output})) for layer in spread]
    with torch.no_grad():
        run()
        for layer, (mean, deviation) in spread.items():
            output = seen[layer]
            channels = output.transpose(0, 1 if isinstance(layer, nn.Conv2d) else -1).flatten(1)
            scale = deviation / channels.std(1).clamp(min=1e-6)
            layer.weight.mul_(scale.reshape(-1, *[1] * (layer.weight.ndim - 1)))
            layer.bias.sub_(channels.mean(1)).mul_(scale).add_(mean)
    for hook in hooks:
        hook.remove()


def as_input(images: Any) -> torch.Tensor:
    """uint8 `[B, H, W, 3]` as float32 `[B, 3, H, W]` from 0 to 1."""
    return torch.from_numpy(images.copy()).permute(0, 3, 1, 2).float() / 255
