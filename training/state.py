"""What a training has come to: weights, their moving average, and what is needed to go on."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from seg_perception.core.errors import ConfigurationError


class Average:
    """Exponential moving average of a network's weights, which is better than any single step's."""

    def __init__(self, network: nn.Module, decay: float = 0.998) -> None:
        self.network = copy.deepcopy(network).eval()
        self._decay, self.updates = decay, 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in one step; early ones weigh more, because the first weights are worth nothing."""
        self.updates += 1
        decay = min(self._decay, (1 + self.updates) / (10 + self.updates))
        source = network.state_dict()
        for name, value in self.network.state_dict().items():
            if value.dtype.is_floating_point:
                value.lerp_(source[name], 1 - decay)
            else:
                value.copy_(source[name])


@dataclass(slots=True)
class Progress:
    """How far a training is.

    Attributes:
        epoch: the one that is in flight.
        step: batches of it that are done.
        sums: losses of these batches, added up.
        seconds: they have taken.
        best: the best number so far.
        history: one row for each finished epoch.
    """

    epoch: int = 0
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    best: float = -1.0
    history: list[dict[str, float]] = field(default_factory=list)


def save_checkpoint(
    path: Path, options: dict[str, Any], network: nn.Module, average: Average, optimizer: torch.optim.Optimizer,
    progress: Progress,
) -> None:  # fmt: skip
    """Write everything, at once or not at all."""
    content = {
        "options": options,
        "network": network.state_dict(),
        "average": average.network.state_dict(),
        "updates": average.updates,
        "optimizer": optimizer.state_dict(),
        "progress": asdict(progress),
    }
    partial = path.with_suffix(".partial")
    torch.save(content, partial)
    partial.replace(path)


def load_checkpoint(
    path: Path, options: dict[str, Any], network: nn.Module, average: Average, optimizer: torch.optim.Optimizer
) -> Progress:
    """Go on where a checkpoint was written.

    Raises:
        ConfigurationError: it is of a training with other options.
    """
    content = torch.load(path, map_location="cpu", weights_only=True)
    changed = sorted(name for name in options if content["options"].get(name) != options[name])
    if changed:
        was = str({name: content["options"].get(name) for name in changed})
        raise ConfigurationError(
            f"{path}: is of a training with other options or data ({was:.300}); give these again to go on, or choose "
            "another --out"
        )
    network.load_state_dict(content["network"])
    average.network.load_state_dict(content["average"])
    average.updates = content["updates"]
    optimizer.load_state_dict(content["optimizer"])
    return Progress(**content["progress"])


def save_weights(path: Path, network: nn.Module) -> None:
    """Write weights for others to begin with, in half precision."""
    save_file({name: _half(value) for name, value in network.state_dict().items()}, path)
    # The library writes files that only their owner can read.
    path.chmod(0o644)


def load_weights(path: Path, network: nn.Module) -> None:
    """Begin with weights that `save_weights` wrote.

    Raises:
        ConfigurationError: the file is of another network, or no such file.
    """
    try:
        found = load_file(path)
        network.load_state_dict({name: value.float() if value.is_floating_point() else value
                                 for name, value in found.items()})  # fmt: skip
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ConfigurationError(f"--init {path}: expected weights of street-nano (.safetensors): {error}") from error


def _half(value: Tensor) -> Tensor:
    value = value.half() if value.is_floating_point() else value
    return value.contiguous().cpu()
