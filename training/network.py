"""The default model's network: anchor-free boxes, mask coefficients and prototype masks; 1.5 million parameters."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

STRIDES = (8, 16, 32)
# Cells of the prototypes are this many network pixels wide.
PROTOTYPE_STRIDE = 4


@dataclass(frozen=True, slots=True)
class NetworkOptions:
    """How large the network is.

    Attributes:
        classes: C.
        prototypes: P.
        channels: of the stages with strides 2, 4, 8, 16 and 32.
        depths: residual blocks of the stages with strides 4, 8, 16 and 32.
        head: channels of the head.
    """

    classes: int = 4
    prototypes: int = 24
    channels: tuple[int, int, int, int, int] = (16, 32, 64, 112, 160)
    depths: tuple[int, int, int, int] = (1, 2, 2, 1)
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

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter = ConvBlock(channels, channels // 2, 1)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.leave = ConvBlock(channels * 2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, channels, h, w]` to the same."""
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
        c2, c4, c8, c16, c32 = options.channels
        d4, d8, d16, d32 = options.depths
        self.stage4 = nn.Sequential(ConvBlock(3, c2, 3, 2), ConvBlock(c2, c4, 3, 2), Stage(c4, c4, d4))
        self.stage8 = nn.Sequential(ConvBlock(c4, c8, 3, 2), Stage(c8, c8, d8))
        self.stage16 = nn.Sequential(ConvBlock(c8, c16, 3, 2), Stage(c16, c16, d16))
        self.stage32 = nn.Sequential(ConvBlock(c16, c32, 3, 2), Stage(c32, c32, d32), Pyramid(c32))
        self.up = nn.Upsample(scale_factor=2.0, mode="nearest")
        self.top16, self.top8 = Stage(c32 + c16, c16, 1), Stage(c16 + c8, c8, 1)
        self.down16, self.down32 = ConvBlock(c8, c8, 3, 2), ConvBlock(c16, c16, 3, 2)
        self.out16, self.out32 = Stage(c8 + c16, c16, 1), Stage(c16 + c32, c32, 1)
        self.heads = nn.ModuleList(Head(channels, options) for channels in (c8, c16, c32))
        self.mask8, self.mask4 = ConvBlock(c8, 48, 1), ConvBlock(c4, 48, 1)
        self.prototypes = nn.Sequential(ConvBlock(48, 48), nn.Conv2d(48, options.prototypes, 1))

    def forward(self, images: Tensor) -> RawOutputs:
        """Run the network.

        Args:
            images: float `[B, 3, H, W]`, RGB, 0 to 1; H and W are multiples of 32.
        """
        x4 = self.stage4(images)
        x8 = self.stage8(x4)
        x16 = self.stage16(x8)
        x32 = self.stage32(x16)
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
