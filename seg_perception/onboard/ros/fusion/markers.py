"""Boxes and labels for RViz and Foxglove."""

from __future__ import annotations

from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point, Pose, Quaternion, Vector3
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from seg_perception.core.classes import ROAD_GROUPS
from seg_perception.onboard.fusion.fuse import Fused

# Red, green and blue by road group: as in the overlay, pedestrians are what must be seen first.
_COLOURS = ((0.95, 0.25, 0.2), (0.2, 0.5, 0.95), (0.95, 0.8, 0.2), (0.25, 0.85, 0.4))
_OTHER = (0.7, 0.7, 0.7)
_LIFETIME = Duration(sec=1)
_TEXT_METRES = 0.4


def markers(fused: Fused) -> MarkerArray:
    """Return a box and a label with its distance for each object; those of before are removed."""
    seconds, nanoseconds = divmod(fused.cloud.stamp_ns, 10**9)
    header = Header(frame_id=fused.cloud.frame_id)
    header.stamp.sec, header.stamp.nanosec = seconds, nanoseconds
    made = [Marker(header=header, action=Marker.DELETEALL)]
    for number, (each, distance) in enumerate(zip(fused.objects, fused.distances, strict=True)):
        group = each.hypotheses[0].name if each.hypotheses else ""
        red, green, blue = _COLOURS[ROAD_GROUPS.index(group)] if group in ROAD_GROUPS else _OTHER
        x, y, z = each.centre.tolist()
        turn = Quaternion(**dict(zip("xyzw", each.quaternion.tolist(), strict=True)))
        common = {"header": header, "id": number, "lifetime": _LIFETIME}
        made.append(
            Marker(
                **common,
                ns="boxes",
                type=Marker.CUBE,
                pose=Pose(position=Point(x=x, y=y, z=z), orientation=turn),
                scale=Vector3(**dict(zip("xyz", each.size.tolist(), strict=True))),
                color=ColorRGBA(r=red, g=green, b=blue, a=0.4),
            )
        )
        name = each.hypotheses[-1].name if each.hypotheses else "?"
        made.append(
            Marker(
                **common,
                ns="labels",
                type=Marker.TEXT_VIEW_FACING,
                pose=Pose(position=Point(x=x, y=y, z=z)),
                scale=Vector3(z=_TEXT_METRES),
                color=ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0),
                text=f"{name} {each.identity}: {distance:.1f} m",
            )
        )
    return MarkerArray(markers=made)
