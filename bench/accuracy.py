"""Accuracy of models on labelled images, and the two halves of a labelled set.

    python -m bench.accuracy split LABELS.json -o FOLDER
    python -m bench.accuracy compare LABELS.json REFERENCE.onnx MODEL.onnx ...

`split` writes `tune.json` and `report.json`: the images in the order of their numbers, every second one. Whoever
chooses anything on the one half (`seg_perception quantize --calibration tune.json`) may report the other, once.

`compare` prints box and mask AP, per road group, too, and the difference of each model to the first one with the
interval of a paired bootstrap over images. Models are computed as their graphs state: float16 rounded at every tensor,
Q/DQ pairs one by one.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import onnx
from tqdm import tqdm

from bench.table import show
from seg_perception.core.class_tables import resolve_class_table
from seg_perception.core.classes import ROAD_GROUPS, ClassTable
from seg_perception.offboard.evaluation.coco import CocoSet
from seg_perception.offboard.evaluation.collect import CollectedFrame, coco_results, collect
from seg_perception.offboard.metrics.agreement import Agreement, compare
from seg_perception.offboard.metrics.average_precision import MatchedResults, match_results, paired_bootstrap
from seg_perception.offboard.toolchain.export import spec_of
from seg_perception.offboard.toolchain.precision.cost import precision_summary
from seg_perception.offboard.toolchain.precision.emulate import emulated
from seg_perception.offboard.toolchain.quantize.emulation import ExactRunner
from seg_perception.onboard.backend.host.backend import HostBackend
from seg_perception.onboard.pipeline.segmenter import Segmenter

HALVES = ("tune", "report")
KINDS = ("box", "mask")


def main() -> None:
    """Run one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    halves = commands.add_parser("split")
    halves.add_argument("labels", type=Path)
    halves.add_argument("-o", "--output", type=Path, required=True)
    models = commands.add_parser("compare")
    models.add_argument("labels", type=Path)
    models.add_argument("models", type=Path, nargs="+")
    arguments = parser.parse_args()
    if arguments.command == "split":
        split(CocoSet.load(arguments.labels), arguments.output)
    else:
        compare_models(CocoSet.load(arguments.labels), arguments.models)


def split(labels: CocoSet, folder: Path) -> None:
    """Write the two halves; their file names are absolute, so that the images stay where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {image.image_id: str(image.path.resolve()) for image in labels.images}
    for place, half in enumerate(HALVES):
        chosen = set(sorted(paths)[place :: len(HALVES)])
        content: dict[str, Any] = {
            "images": [
                {**image, "file_name": paths[image["id"]]}
                for image in labels.annotations["images"]
                if image["id"] in chosen
            ],
            "annotations": [each for each in labels.annotations["annotations"] if each["image_id"] in chosen],
            "categories": labels.annotations["categories"],
        }
        path = folder / f"{half}.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        print(f"{path}: {len(content['images'])} images, {len(content['annotations'])} objects")


def compare_models(labels: CocoSet, paths: list[Path]) -> None:
    """Print the tables."""
    found, matched, shares = [], [], []
    for path in paths:
        model = onnx.load(path)
        table = resolve_class_table("auto", spec_of(model).class_names)
        found.append(instances(model, labels, table, path.name))
        names = spec_of(model).class_names
        matched.append(results(found[-1], labels.matching(names), names))
        shares.append(precision_summary(model).share("int8"))
    averages = [{kind: each[kind].average_precision(table) for kind in KINDS} for each in matched]
    rows = [
        [path.name, f"{100 * share:.1f} %", *(f"{100 * getattr(each[kind], which):.2f}" for kind, which in _COLUMNS)]
        for path, share, each in zip(paths, shares, averages, strict=True)
    ]
    show(
        f"{len(labels.images)} images of {labels.path.name}",
        ["model", "INT8", *(f"{k} {w}" for k, w in _COLUMNS)],
        rows,
    )
    rows = []
    for path, each in zip(paths[1:], matched[1:], strict=True):
        for kind in KINDS:
            lost = paired_bootstrap(each[kind], matched[0][kind])
            rows.append([path.name, kind, *(f"{100 * value:+.2f}" for value in (lost.value, lost.low, lost.high))])
    show(f"points of AP lost against {paths[0].name}, 95 % interval", ["model", "kind", "lost", "low", "high"], rows)
    groups = [group for group in ROAD_GROUPS if group in averages[0]["mask"].per_group]
    rows = [
        [path.name, kind, *(f"{100 * each[kind].per_group[group]:.2f}" for group in groups)]
        for path, each in zip(paths, averages, strict=True)
        for kind in KINDS
    ]
    show("AP by road group, mean over the model's classes in it", ["model", "kind", *groups], rows)
    rows = []
    for path, frames in zip(paths[1:], found[1:], strict=True):
        agreed = Agreement.of([compare(a.instances, b.instances) for a, b in zip(found[0], frames, strict=True)])
        counts = (agreed.reference, agreed.missed, agreed.extra, agreed.switched)
        rows.append([path.name, f"{agreed.mean_iou:.4f}", *map(str, counts)])
    faults = ["false negatives", "false positives", "class confusions"]
    show(f"instances against {paths[0].name}", ["model", "mask IoU", "of", *faults], rows)


_COLUMNS = (("box", "overall"), ("box", "at_50"), ("mask", "overall"), ("mask", "at_50"))


def instances(model: onnx.ModelProto, labels: CocoSet, table: ClassTable, title: str) -> list[CollectedFrame]:
    """What a model finds in the images."""
    segmenter = Segmenter(HostBackend(ExactRunner(emulated(model)[0])), table)
    return list(collect(segmenter, tqdm(labels.source(), desc=title, disable=None)))


def results(found: list[CollectedFrame], labels: CocoSet, names: tuple[str, ...]) -> dict[str, MatchedResults]:
    """The same matched with the labels."""
    categories = labels.categories(names)
    entries = [entry for frame in found for entry in coco_results(frame.instances, int(frame.name), categories)]
    return {kind: match_results(labels.annotations, entries, labels.image_ids, kind) for kind in KINDS}


if __name__ == "__main__":
    main()
