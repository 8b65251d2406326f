"""How large the instance map is."""

from __future__ import annotations

from dataclasses import dataclass

from seg_perception.core.errors import ConfigurationError
from seg_perception.core.geometry import ResizeGeometry


@dataclass(frozen=True, slots=True)
class OutputSize:
    """Size of the instance map; it always shows the whole camera image.

    Attributes:
        mode: `camera` (the camera's resolution), `network` (that of the image within the network input, without
            padding) or `scale`.
        scale: map pixels per camera pixel, for `scale`.
    """

    mode: str = "camera"
    scale: float = 1.0

    @classmethod
    def parse(cls, text: str) -> OutputSize:
        """Read `camera`, `network` or a number such as `0.5`.

        Raises:
            ConfigurationError: it is none of these, or the scale is not in 0.01 to 4.
        """
        if text in ("camera", "network"):
            return cls(text)
        try:
            scale = float(text)
        except ValueError:
            scale = 0.0
        if not 0.01 <= scale <= 4.0:
            raise ConfigurationError(
                f"output size: expected 'camera', 'network' or a scale from 0.01 to 4 such as '0.5', got {text!r}"
            )
        return cls("scale", scale)

    def of(self, geometry: ResizeGeometry) -> tuple[int, int]:
        """Height and width of the map for a camera."""
        if self.mode == "network":
            return geometry.content_height, geometry.content_width
        if self.mode == "camera":
            return geometry.camera_height, geometry.camera_width
        return (
            max(1, round(geometry.camera_height * self.scale)),
            max(1, round(geometry.camera_width * self.scale)),
        )
