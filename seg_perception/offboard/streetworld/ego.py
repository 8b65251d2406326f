"""Where the car with the camera is, in frames and axes of ROS: x ahead, y to the left, z up.

`map` -> `base_link` -> `camera_link` -> the camera's optical frame. `base_link` lies on the road under the camera,
looks where the car looks and never tilts, so that the road is its plane z = 0. `camera_link` is the camera's mount on
the body, which nods and rolls, at another height in each drive. Therefore only the last of the three steps is static.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MAP, BASE, MOUNT = "map", "base_link", "camera_link"


@dataclass(frozen=True, slots=True)
class Transform:
    """Where a frame is in its parent.

    Attributes:
        parent, child: names of the frames.
        translation: the child's origin, x y z in metres.
        rotation: of the child's axes, a unit quaternion x y z w.
    """

    parent: str
    child: str
    translation: tuple[float, float, float]
    rotation: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class EgoPose:
    """Where the car is and how its camera looks.

    Attributes:
        x, y: of `base_link` on the map in metres.
        heading: of `base_link`, 0 along the map's x, positive to the left, in radians.
        height: of the camera above the road in metres.
        roll, pitch: of the camera in radians; positive with its left side up, and looking down.
    """

    x: float
    y: float
    heading: float
    height: float
    roll: float
    pitch: float

    def transforms(self) -> tuple[Transform, Transform]:
        """Return where the car is, and where the camera's mount is on it."""
        return (
            Transform(MAP, BASE, (self.x, self.y, 0.0), quaternion(0.0, 0.0, self.heading)),
            Transform(BASE, MOUNT, (0.0, 0.0, self.height), quaternion(self.roll, self.pitch, 0.0)),
        )


def optical(frame_id: str) -> Transform:
    """From the mount to an optical frame (x to the right, y down, z ahead) at the same point."""
    return Transform(MOUNT, frame_id, (0.0, 0.0, 0.0), (-0.5, 0.5, -0.5, 0.5))


def quaternion(roll: float, pitch: float, yaw: float) -> tuple[float, float, float, float]:
    """Of turns about the fixed axes x, then y, then z, in radians; x y z w."""
    (sr, sp, sy), (cr, cp, cy) = np.sin([roll / 2, pitch / 2, yaw / 2]), np.cos([roll / 2, pitch / 2, yaw / 2])
    x, y = sr * cp * cy - cr * sp * sy, cr * sp * cy + sr * cp * sy
    z, w = cr * cp * sy - sr * sp * cy, cr * cp * cy + sr * sp * sy
    return float(x), float(y), float(z), float(w)
