"""`seg_perception fuse`: labelled points and objects in 3D for a bag that has a segmenter's results."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "give the instances in a bag a place, from its lidar or depth images, as the node `fusion` does"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add = parser.add_argument
    add("bag", type=Path, metavar="BAG", help="with points, /tf and results, such as `replay --copy-inputs` writes")
    add("--points", required=True, metavar="TOPIC", help="sensor_msgs/PointCloud2, or an aligned depth image")
    add("-o", "--output", type=Path, required=True, metavar="OUT.mcap", help="bag to write")
    add("--results", default="/segmenter", metavar="NS", help="namespace of the results (default: %(default)s)")
    add("--camera-info", default="", metavar="TOPIC", help="the calibration (default: NS/camera_info)")
    add("--rectified", action="store_true", help="the segmenter read rectified images")
    add("--namespace", default="/fusion", help="of the written topics (default: %(default)s)")
    add("--target-frame", default="", metavar="F", help="frame of the results (default: that of the points)")
    add("--fixed-frame", default="odom", metavar="F", help="does not move with the vehicle (default: %(default)s)")
    add("--max-difference", type=float, default=0.1, metavar="S", help="most seconds between image and points")
    add("--min-points", type=int, default=5, metavar="N", help="fewer make no object (default: %(default)s)")
    add("--all-points", action="store_true", help="write points of no object, too")


def run(arguments: argparse.Namespace) -> int:
    """Fuse; 1 when points or results were lost, or there was nothing to fuse."""
    from seg_perception.offboard.replay.fuse import FuseJob, fuse_bag
    from seg_perception.onboard.fusion.boxes import FusionOptions
    from seg_perception.onboard.fusion.fuser import FuserOptions

    options = FuserOptions(
        target_frame=arguments.target_frame,
        fixed_frame=arguments.fixed_frame,
        max_difference=arguments.max_difference,
        all_points=arguments.all_points,
        objects=FusionOptions(min_points=arguments.min_points),
    )
    record = fuse_bag(
        FuseJob(
            arguments.bag, arguments.points, arguments.output, arguments.results.rstrip("/"), arguments.camera_info,
            arguments.namespace.rstrip("/"), arguments.rectified, options,
        )
    )  # fmt: skip
    print(f"{record.fused} results: {record.objects} objects placed, {record.unplaced} with too few points")
    print(f"motion of the vehicle compensated: {record.compensation or 'nothing was fused'}")
    for cause, count in record.dropped.items():
        print(f"dropped: {count} ({cause})")
    for fault in record.faults:
        print(f"lost: {fault}")
    print(f"written to {arguments.output}")
    return 1 if record.faults or record.dropped or not record.fused else 0
