"""What may change between two frames."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import ConfigurationError
from .output_size import OutputSize
from .select import SelectOptions


@dataclass(frozen=True, slots=True)
class SegmenterOptions:
    """Everything that may change between two frames.

    Attributes:
        select: which detections are kept.
        min_pixels: instances with fewer visible pixels of the instance map are neither published nor tracked.
        output_size: size of the instance map.
    """

    select: SelectOptions = field(default_factory=SelectOptions)
    min_pixels: int = 16
    output_size: OutputSize = field(default_factory=OutputSize)

    def __post_init__(self) -> None:
        if self.min_pixels < 0:
            raise ConfigurationError(f"min_pixels: expected 0 or more, got {self.min_pixels}")
