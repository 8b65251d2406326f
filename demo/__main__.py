"""`make demo`: a camera process, the node and a viewer process, over real DDS on this machine.

Without --input the camera drives through the street world, and what arrives is held against its ground truth.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from demo.film import contact_sheet, write_film
from demo.model import MODEL, canonical
from demo.report import instances_text, session_text, truth_text
from demo.session import Report, run
from demo.street import DESIGNS, DRIVE_FRAMES, SEED, drive, has_truth, make_bag
from seg_perception.cli.streetworld import size_of
from seg_perception.core.errors import SegPerceptionError
from seg_perception.offboard.data.images import open_source
from seg_perception.offboard.streetworld.world import WorldOptions


def main() -> int:
    """Run the demo."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument(
        "--model", type=Path, default=MODEL, help="canonical model, or an export with class names (%(default)s)"
    )
    parser.add_argument("--input", type=Path, nargs="+", help="images, folders, videos; or a bag of the street world")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the results (%(default)s)")
    parser.add_argument(
        "--rate", type=float, default=8.0, help="camera frames per second (%(default)s; a bag has its own)"
    )
    parser.add_argument("--frames", type=int, default=120, help="frames to publish (%(default)s)")
    parser.add_argument("--size", help="camera resolution, WIDTHxHEIGHT (street world: 640x384, images: 1280x720)")
    parser.add_argument("--seed", type=int, default=SEED, help="of the street world (%(default)s)")
    arguments = parser.parse_args()
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
        report = _street(arguments) if _is_street(arguments.input) else _images(arguments)
    except (SegPerceptionError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"node's log: {arguments.out / 'node.log'}")
    if not report.latencies_ms:
        print("error: no instance map arrived; see the node's log", file=sys.stderr)
        return 1
    return 0


def _is_street(inputs: list[Path] | None) -> bool:
    """Whether there is ground truth to compare with."""
    return inputs is None or (len(inputs) == 1 and has_truth(inputs[0]))


def _street(arguments: argparse.Namespace) -> Report:
    model = canonical(arguments.model, arguments.out)
    print(f"model:  {model}")
    if arguments.input:
        bag, rate = arguments.input[0], None
    else:
        size = size_of(arguments.size or "640x384")
        options = WorldOptions(
            arguments.frames, arguments.seed, *size, arguments.rate, scene_frames=DRIVE_FRAMES, designs=DESIGNS
        )
        bag, rate = make_bag(arguments.out / "streetworld", options), arguments.rate
    print(f"camera: {bag}, a bag of the street world", flush=True)
    driven = drive(model, bag, arguments.out, arguments.frames, rate)
    print(session_text(driven.report))
    if driven.comparison is not None:
        print(truth_text(driven.comparison))
    video, sheet = arguments.out / "drive.mp4", arguments.out / "contact_sheet.jpg"
    write_film(driven, video, sheet)
    print(f"\nreceived next to the truth: {video}, {sheet}   received: {arguments.out / 'received'}", end="   ")
    return driven.report


def _images(arguments: argparse.Namespace) -> Report:
    for path in arguments.input:
        open_source(path)
    model = canonical(arguments.model, arguments.out)
    size = arguments.size or "1280x720"
    print(f"camera: {size} at {arguments.rate:g} Hz, {arguments.frames} frames")
    print(f"model:  {model}", flush=True)
    overlays = arguments.out / "overlays"
    for old in overlays.glob("*.jpg"):
        old.unlink()
    report = run(
        model, arguments.input, arguments.out, rate=arguments.rate, frames=arguments.frames, size=size, overlays=True
    )
    print(session_text(report))
    print(instances_text(report))
    sheet = contact_sheet(sorted(overlays.glob("*.jpg")), arguments.out / "contact_sheet.jpg")
    print(f"\noverlays: {overlays}   contact sheet: {sheet}", end="   ")
    return report


if __name__ == "__main__":
    sys.exit(main())
