"""`make demo`: street pictures from a camera process, through the node, to a viewer process, over real DDS."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from demo.defaults import DefaultsMissing, canonical, default_inputs, default_model
from demo.report import contact_sheet, tables
from demo.session import run
from seg_perception.errors import SegPerceptionError
from seg_perception.sources.images import open_source


def main() -> int:
    """Run the demo; exit code 2 when there is no model or no picture to run on."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--model", type=Path, help="canonical model, or an export that carries its class names (.onnx)")
    parser.add_argument("--input", type=Path, nargs="+", help="pictures, folders or videos")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the results")
    parser.add_argument("--rate", type=float, default=8.0, help="camera frames per second")
    parser.add_argument("--frames", type=int, default=120, help="frames to publish")
    parser.add_argument("--size", default="1280x720", help="camera resolution, WIDTHxHEIGHT")
    arguments = parser.parse_args()
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
        inputs = arguments.input or default_inputs()
        for path in inputs:
            open_source(path)
        model = canonical(arguments.model or default_model(), arguments.out)
        print(f"camera: {arguments.size} at {arguments.rate:g} Hz, {arguments.frames} frames")
        print(f"model:  {model}")
        for old in (arguments.out / "overlays").glob("*.jpg"):
            old.unlink()
        report = run(
            model,
            inputs,
            arguments.out,
            rate=arguments.rate,
            frames=arguments.frames,
            size=arguments.size,
            overlays=True,
        )
    except DefaultsMissing as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (SegPerceptionError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(tables(report))
    sheet = contact_sheet(sorted((arguments.out / "overlays").glob("*.jpg")), arguments.out / "contact_sheet.jpg")
    print(
        f"\noverlays: {arguments.out / 'overlays'}   contact sheet: {sheet}   node's log: {arguments.out / 'node.log'}"
    )
    if not report.latencies_ms:
        print("error: no instance map arrived; see the node's log", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
