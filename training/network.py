"""The default model's network: EfficientNet-Lite0, anchor-free boxes, mask coefficients and prototype masks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

STRIDES = (8, 16, 32)
# Cells of the prototypes are this many network pixels wide.
PROTOTYPE_STRIDE = 4
# What the trunk's weights were learnt with, for pixels from 0 to 255 (ImageNet's usual mean and deviation).
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
# The trunk's stages, by the stride they lead to: channels, kernel size, number of blocks, stride of the first
# of each group (EfficientNet-Lite0, Tan, 2020). The original's last two blocks are left out, a third of its weights.
_TRUNK = {
    4: ((24, 3, 2, 2),), 8: ((40, 5, 2, 2),), 16: ((80, 3, 3, 2), (112, 5, 3, 1)), 32: ((192, 5, 3, 2),)
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class NetworkOptions:
    """How large the network is beyond its trunk.

    Attributes:
        classes: C.
        prototypes: P.
        neck: channels of the pyramid at strides 8, 16 and 32.
        head: channels of the head.
    """

    classes: int = 4
    prototypes: int = 24
    neck: tuple[int, int, int] = (64, 96, 128)
    head: int = 64


@dataclass(frozen=True, slots=True)
class RawOutputs:
    """What the network says of every position, positions of all strides in one row; N of them.

    Attributes:
        distances: float `[B, 4, N]`, left, top, right and bottom side of the box from the position, in strides.
        classes: float `[B, C, N]`, logits.
        coefficients: float `[B, P, N]`.
        prototypes: float `[B, P, h, w]`, at `PROTOTYPE_STRIDE`.
        centres: float `[2, N]`, x and y of the positions in network pixels.
        strides: float `[N]`.
    """

    distances: Tensor
    classes: Tensor
    coefficients: Tensor
    prototypes: Tensor
    centres: Tensor
    strides: Tensor

    def corners(self) -> Tensor:
        """Boxes as x1 y1 x2 y2 in network pixels, float `[B, 4, N]`."""
        left_top, right_bottom = self.distances.split(2, 1)
        return torch.cat((self.centres - left_top * self.strides, self.centres + right_bottom * self.strides), 1)


class ConvBlock(nn.Sequential):
    """Convolution, normalisation, ReLU, which quantizes better than smoother ones and costs least."""

    def __init__(self, inputs: int, outputs: int, size: int = 3, stride: int = 1, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03),
            nn.ReLU(inplace=True),
        )


class Inverted(nn.Module):
    """A block of the trunk: more channels, a convolution of each by itself, fewer again, next to a shortcut."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int, growth: int) -> None:
        super().__init__()
        wide = inputs * growth
        self.expand = _Trunk6(inputs, wide, 1) if growth > 1 else nn.Identity()
        self.depthwise = _Trunk6(wide, wide, size, stride, wide)
        self.project = _Folding(nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs, eps=1e-3))
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """`[B, inputs, h, w]` to `[B, outputs, h / stride, w / stride]`."""
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.shortcut else y


class _Folding(nn.Sequential):
    """A convolution and a normalisation of known statistics, computed as one, which is cheaper in training, too."""

    def forward(self, x: Tensor) -> Tensor:
        """`[B, inputs, h, w]` to `[B, outputs, h / stride, w / stride]`."""
        conv, norm, *others = self
        if isinstance(norm, nn.BatchNorm2d) and isinstance(conv, nn.Conv2d):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
            weight, bias = conv.weight * scale[:, None, None, None], norm.bias - norm.running_mean * scale
            x = nn.functional.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)
        else:
            x = conv(x)
        for other in others:
            x = other(x)
        return x


class _Trunk6(_Folding):
    """Convolution, normalisation and ReLU6, as the trunk was made for INT8.

    The original pads strided convolutions on one side only. On both sides, they see the same image half a cell further.
    """

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs, eps=1e-3),
            nn.ReLU6(inplace=True),
        )


def _trunk_stage(inputs: int, stride: int) -> list[nn.Module]:
    """The blocks of the trunk that lead to a stride."""
    blocks: list[nn.Module] = []
    for outputs, size, count, first in _TRUNK[stride]:
        for number in range(count):
            blocks.append(Inverted(inputs, outputs, size, first if number == 0 else 1, 6))
            inputs = outputs
    return blocks


class Residual(nn.Module):
    """Two convolutions next to a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(ConvBlock(channels, channels), ConvBlock(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """`[B, channels, h, w]` to the same."""
        added: Tensor = x + self.body(x)
        return added


class Stage(nn.Module):
    """A partial stage: one half of the channels goes through residual blocks, and everything on the way is joined."""

    def __init__(self, inputs: int, outputs: int, depth: int) -> None:
        super().__init__()
        half = outputs // 2
        self.enter = ConvBlock(inputs, 2 * half, 1)
        self.blocks = nn.ModuleList(Residual(half) for _ in range(depth))
        self.leave = ConvBlock((2 + depth) * half, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, inputs, h, w]` to `[B, outputs, h, w]`."""
        parts = list(self.enter(x).chunk(2, 1))
        for block in self.blocks:
            parts.append(block(parts[-1]))
        joined: Tensor = self.leave(torch.cat(parts, 1))
        return joined


class Pyramid(nn.Module):
    """Maxima over ever larger surroundings, so that the coarsest positions see most of the image."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.enter = ConvBlock(inputs, outputs // 2, 1)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.leave = ConvBlock(outputs * 2, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, inputs, h, w]` to `[B, outputs, h, w]`."""
        parts = [self.enter(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        joined: Tensor = self.leave(torch.cat(parts, 1))
        return joined


class Head(nn.Module):
    """What one stride says; classes apart from geometry, which look at different things."""

    def __init__(self, inputs: int, options: NetworkOptions) -> None:
        super().__init__()
        width = options.head
        self.shared = ConvBlock(inputs, width)
        self.for_class = nn.Sequential(ConvBlock(width, width, groups=width), ConvBlock(width, width, 1))
        self.for_shape = nn.Sequential(ConvBlock(width, width, groups=width), ConvBlock(width, width, 1))
        self.classes = nn.Conv2d(width, options.classes, 1)
        self.distances = nn.Conv2d(width, 4, 1)
        self.coefficients = nn.Conv2d(width, options.prototypes, 1)
        # At first about one position in a hundred is taken for something, and boxes are two strides wide.
        nn.init.constant_(self.classes.bias, -4.6)  # type: ignore[arg-type]
        nn.init.constant_(self.distances.bias, 0.55)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`[B, inputs, h, w]` to distances, classes and coefficients, each `[B, ..., h * w]`."""
        shared = self.shared(x)
        of_class, of_shape = self.for_class(shared), self.for_shape(shared)
        distances = nn.functional.softplus(self.distances(of_shape).flatten(2).float())
        return distances, self.classes(of_class).flatten(2), self.coefficients(of_shape).flatten(2)


class StreetNano(nn.Module):
    """The whole network."""

    def __init__(self, options: NetworkOptions | None = None) -> None:
        super().__init__()
        self.options = options = options or NetworkOptions()
        c4, c8, c16, c32 = (_TRUNK[stride][-1][0] for stride in (4, 8, 16, 32))
        self.stage4 = nn.Sequential(_Trunk6(3, 32, 3, 2), Inverted(32, 16, 3, 1, 1), *_trunk_stage(16, 4))
        self.stage8 = nn.Sequential(*_trunk_stage(c4, 8))
        self.stage16 = nn.Sequential(*_trunk_stage(c8, 16))
        self.stage32 = nn.Sequential(*_trunk_stage(c16, 32))
        n8, n16, n32 = options.neck
        self.pyramid = Pyramid(c32, n32)
        self.up = nn.Upsample(scale_factor=2.0, mode="nearest")
        self.top16, self.top8 = Stage(n32 + c16, n16, 1), Stage(n16 + c8, n8, 1)
        self.down16, self.down32 = ConvBlock(n8, n8, 3, 2), ConvBlock(n16, n16, 3, 2)
        self.out16, self.out32 = Stage(n8 + n16, n16, 1), Stage(n16 + n32, n32, 1)
        self.heads = nn.ModuleList(Head(channels, options) for channels in options.neck)
        self.mask8, self.mask4 = ConvBlock(n8, 48, 1), ConvBlock(c4, 48, 1)
        self.prototypes = nn.Sequential(ConvBlock(48, 48), nn.Conv2d(48, options.prototypes, 1))

    @property
    def trunk(self) -> nn.ModuleList:
        """The stages that began with weights of others."""
        return nn.ModuleList((self.stage4, self.stage8, self.stage16, self.stage32))

    def train(self, mode: bool = True) -> StreetNano:
        """The trunk keeps its statistics: batches are too small and too alike for better ones."""
        super().train(mode)
        self.trunk.eval()
        return self

    def forward(self, images: Tensor) -> RawOutputs:
        """Run the network.

        Args:
            images: float `[B, 3, H, W]`, RGB, as `normalised` makes them; H and W are multiples of 32.
        """
        x4 = self.stage4(images)
        x8 = self.stage8(x4)
        x16 = self.stage16(x8)
        x32 = self.pyramid(self.stage32(x16))
        y16 = self.top16(torch.cat((self.up(x32), x16), 1))
        y8 = self.top8(torch.cat((self.up(y16), x8), 1))
        z16 = self.out16(torch.cat((self.down16(y8), y16), 1))
        z32 = self.out32(torch.cat((self.down32(z16), x32), 1))
        # Coarse knowledge of what things are, fine knowledge of where they end.
        prototypes = self.prototypes(self.up(self.mask8(y8)) + self.mask4(x4))
        said = [head(level) for head, level in zip(self.heads, (y8, z16, z32), strict=True)]
        distances, classes, coefficients = (torch.cat(parts, 2) for parts in zip(*said, strict=True))
        centres, strides = positions(images.shape[2], images.shape[3], images.device)
        return RawOutputs(distances, classes, coefficients, prototypes, centres, strides)


def normalised(images: Tensor) -> Tensor:
    """What the network takes, of RGB from 0 to 255, `[B, 3, H, W]`."""
    mean, std = (torch.tensor(each, device=images.device)[:, None, None] for each in (MEAN, STD))
    return ((images.float() - mean) / std).contiguous(memory_format=torch.channels_last)


def positions(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Centres of all positions, float `[2, N]` in network pixels, and their strides, float `[N]`."""
    centres, strides = [], []
    for stride in STRIDES:
        ys = (torch.arange(height // stride, device=device) + 0.5) * stride
        xs = (torch.arange(width // stride, device=device) + 0.5) * stride
        y, x = torch.meshgrid(ys, xs, indexing="ij")
        centres.append(torch.stack((x.flatten(), y.flatten())))
        strides.append(torch.full((y.numel(),), float(stride), device=device))
    return torch.cat(centres, 1), torch.cat(strides)
