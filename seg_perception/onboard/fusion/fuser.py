"""From points and the views of cameras to results: which belong together, and where everything was."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from seg_perception.core.errors import FrameError
from seg_perception.core.messages.images import COMPRESSED_IMAGE, IMAGE, read_compressed_image, read_image
from seg_perception.core.messages.point_clouds import POINT_CLOUD, PointCloud, read_point_cloud

from .boxes import FusionOptions
from .depth import DepthImage, read_compressed_depth, read_depth
from .fuse import Fused, View, deskewed, fuse_cloud, fuse_depth
from .headings import Headings
from .transforms import TransformBuffer, TransformError
from .views import ViewJoiner

# Results of a camera whose last ones are older than this are not waited for.
_SILENT_NS = 10**9
NO_VIEW = "no_view"
# Points of a serialized message, by its type.
READERS: Mapping[str, Callable[[bytes], PointCloud | DepthImage]] = {
    POINT_CLOUD: read_point_cloud,
    IMAGE: lambda serialized: read_depth(read_image(serialized)),
    COMPRESSED_IMAGE: lambda serialized: read_compressed_depth(read_compressed_image(serialized)),
}


@dataclass(frozen=True, slots=True)
class FuserOptions:
    """How points and images are brought together; times are in seconds.

    Attributes:
        target_frame: in which results are wanted; empty for that of the points.
        fixed_frame: does not move with the vehicle; empty for no compensation of motion.
        max_difference: most between an image and points.
        max_wait: for which points wait for results and transforms.
        all_points: whether points of no object are kept.
        motion_headings: whether boxes are turned to where objects move.
        objects: how points become objects.
    """

    target_frame: str = ""
    fixed_frame: str = "odom"
    max_difference: float = 0.1
    max_wait: float = 0.3
    all_points: bool = False
    motion_headings: bool = False
    objects: FusionOptions = field(default_factory=FusionOptions)


class Fuser:
    """Labels the points of one lidar, or of the depth images of one camera.

    Attributes:
        options: may be replaced at any time.
        compensation: what is done about the vehicle's motion, for people.
    """

    def __init__(self, options: FuserOptions, transforms: TransformBuffer, joiners: Sequence[ViewJoiner]) -> None:
        """Prepare.

        Args:
            options: how.
            transforms: of /tf; filled by the caller.
            joiners: of the cameras, all for a lidar and one for depth images; filled by the caller.
        """
        self.options = options
        self.compensation = ""
        self._transforms, self._joiners = transforms, joiners
        self._headings = Headings()

    def fuse(self, points: PointCloud | DepthImage, waited: float) -> Fused | None:
        """Give points their labels.

        Args:
            points: of one sweep, or of one depth image.
            waited: seconds since they came.

        Returns:
            The result; None when something may still come that is worth waiting for.

        Raises:
            FrameError: they are to be dropped: kind `no_view`, no camera has results of that time; `transform`, it is
                not known where things were; `size` or `calibration`, a depth image does not fit its camera.
        """
        late = waited >= self.options.max_wait
        if not late and any(_is_due(joiner, points.stamp_ns) for joiner in self._joiners):
            return None
        nearest = [joiner.nearest(points.stamp_ns, self.options.max_difference) for joiner in self._joiners]
        views = [view for view in nearest if view is not None]
        if not views:
            if not late:
                return None
            raise FrameError(NO_VIEW, self._without_view(points.stamp_ns))
        try:
            return self._fused(points, views)
        except TransformError as error:
            if error.early and not late:
                return None
            raise

    def _fused(self, points: PointCloud | DepthImage, views: list[View]) -> Fused:
        options, transforms, stamp_ns = self.options, self._transforms, points.stamp_ns
        fixed = self._fixed_frame()
        frame = points.frame_id.lstrip("/") if isinstance(points, PointCloud) else views[0].frame_id
        target = options.target_frame or frame
        to_target = target, transforms.lookup(target, frame, stamp_ns)
        headings = self._headings_in(target, fixed, stamp_ns)
        if not isinstance(points, PointCloud):
            height, width = points.values.shape
            view = self._joiners[0].at_size(views[0], width, height)
            return fuse_depth(points, view, to_target, options.objects, headings, all_points=options.all_points)
        cloud = deskewed(points, transforms, fixed) if fixed else points
        placed = [
            (
                view,
                transforms.lookup_between(view.frame_id, view.stamp_ns, frame, stamp_ns, fixed)
                if fixed
                else transforms.lookup(view.frame_id, frame, stamp_ns),
            )
            for view in views
        ]
        names = [joiner.camera for joiner in self._joiners]
        return fuse_cloud(cloud, placed, to_target, options.objects, headings, names)

    def _fixed_frame(self) -> str:
        fixed = self.options.fixed_frame
        if not fixed:
            self.compensation = "none: fixed_frame is empty"
        elif self._transforms.knows(fixed):
            self.compensation = f"through frame {fixed}"
            return fixed
        else:
            self.compensation = f"none: frame {fixed!r} is not in /tf"
        return ""

    def _headings_in(self, target: str, fixed: str, stamp_ns: int) -> Callable[..., Any]:
        if not (self.options.motion_headings and fixed):
            return lambda identity, centre: None
        to_fixed = self._transforms.lookup(fixed, target, stamp_ns)
        self._headings.forget_before(stamp_ns)
        return lambda identity, centre: self._headings.of(identity, stamp_ns, centre, to_fixed)

    def _without_view(self, stamp_ns: int) -> str:
        """Why points have no view, for people."""
        reasons = []
        for joiner in self._joiners:
            latest = joiner.latest_ns()
            if latest is None:
                reason = joiner.lacking or "no results have come yet"
            else:
                reason = f"its latest results are {abs(latest - stamp_ns) / 1e9:.2f} s apart"
            reasons.append(f"camera {joiner.camera}: {reason}")
        options = self.options
        return (
            f"points of {stamp_ns / 1e9:.3f} s: expected results of a camera within {options.max_difference:g} s, "
            f"found none after {options.max_wait:g} s; {'; '.join(reasons)}; check that the segmenter runs, and that "
            "camera and sensor have one clock; max_wait must exceed the segmenter's latency"
        )


def _is_due(joiner: ViewJoiner, stamp_ns: int) -> bool:
    """Return whether results of a camera may still come that are nearer to a moment than those that have."""
    latest = joiner.latest_ns()
    return latest is not None and 0 < stamp_ns - latest < _SILENT_NS
