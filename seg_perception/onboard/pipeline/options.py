"""What may change between two frames."""

from __future__ import annotations

from dataclasses import dataclass, field

from seg_perception.core.errors import ConfigurationError
from seg_perception.onboard.backend.host.select import SelectOptions

from .output_size import OutputSize
from .track import TrackerOptions

# What 32 bits with a sign hold, on a GPU.
MOST_MIN_PIXELS = 2**31 - 1


@dataclass(frozen=True, slots=True)
class SegmenterOptions:
    """Everything that may change between two frames.

    Attributes:
        select: which detections are kept.
        min_pixels: instances with fewer visible pixels of the instance map are not published.
        output_size: size of the instance map.
        tracking: how numbers are kept from frame to frame; None numbers each frame again, 1..N by descending score.
    """

    select: SelectOptions = field(default_factory=SelectOptions)
    min_pixels: int = 16
    output_size: OutputSize = field(default_factory=OutputSize)
    tracking: TrackerOptions | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.min_pixels <= MOST_MIN_PIXELS:
            raise ConfigurationError(f"min_pixels: expected 0 to {MOST_MIN_PIXELS}, got {self.min_pixels}")
