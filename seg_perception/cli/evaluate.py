"""`seg_perception evaluate`: how good models are, on images whose truth is known."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from seg_perception.core.errors import ConfigurationError, IncompleteBagError

from .fleet_arguments import add_fleet_arguments, bags_of, on_fleet, run_on_fleet, worker_threads
from .model_arguments import add_model_arguments, model_choice

if TYPE_CHECKING:
    from seg_perception.core.frame import Frame
    from seg_perception.offboard.evaluation.datasets.labelled import LabelledSet
    from seg_perception.offboard.evaluation.results import Evaluation
    from seg_perception.offboard.evaluation.scheme import Subject
    from seg_perception.onboard.pipeline.opening import ModelChoice

HELP = "measure models on labelled images or a bag with its truth, compare them, and write a report"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--model", type=Path, nargs="+", action="extend", required=True, metavar="M",
        help="canonical models (.onnx) or engines; the others are compared with the first",
    )  # fmt: skip
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument(
        "--dataset", type=Path, metavar="PATH", help="labelled images: COCO file, or folder or file of another format"
    )
    data.add_argument(
        "--bag", type=Path, nargs="+", metavar="BAG",
        help="bag with its truth, as `streetworld --bag` writes; several: each by itself, and all together",
    )  # fmt: skip
    parser.add_argument("--images", type=Path, metavar="DIR", help="folder of the images of --dataset")
    parser.add_argument(
        "--format", default="auto", metavar="F",
        help="of --dataset: auto, coco, cityscapes, bdd100k or mots (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--truth", default="", metavar="NAME", help="name of the truth's topics in --bag (default: /ground_truth)"
    )
    parser.add_argument("--topic", default="", help="of the images in --bag, where there are several")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR",
        help="folder for report.html, evaluation.json, truth.json and NAME.results.json",
    )  # fmt: skip
    parser.add_argument(
        "--score", type=float, default=0.25,
        help="an instance is published from this score on; average precision looks at all (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--report-frames", type=int, default=8, metavar="N",
        help="frames in the report: so many of the best, worst and most changed each (default: %(default)s)",
    )  # fmt: skip
    add_model_arguments(parser)
    add_fleet_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate; images that cannot be read are named and left out. 1 when a bag gave fewer than it holds."""
    from seg_perception.core.files import writable_folder
    from seg_perception.offboard.evaluation.evaluate import EvaluateOptions, evaluate
    from seg_perception.offboard.evaluation.page import write_evaluation_report
    from seg_perception.offboard.evaluation.result_file import write_evaluation
    from seg_perception.offboard.metrics.segmentations import require_pycocotools

    from .evaluate_tables import tables

    require_pycocotools()
    if on_fleet(arguments) or len(arguments.bag or ()) > 1 or arguments.list is not None:
        return _each_by_itself(arguments)
    options = EvaluateOptions(arguments.score, arguments.report_frames, _watch)
    writable_folder(arguments.output)
    with ExitStack() as opened:
        subjects = _opened([model_choice(str(each), arguments) for each in arguments.model], opened)
        labelled = _data(arguments)
        labelled.source.bit_depth = arguments.bit_depth
        found = evaluate(subjects, labelled, options, arguments.output)
    write_evaluation(arguments.output / "evaluation.json", found)
    for model in found.models:
        print(f"{model.name}: {', '.join(f'{key} {value}' for key, value in model.identity.items())}")
    for table in tables(found):
        print(f"\n{table}")
    print()
    for note in _notes(found):
        print(note)
    print(f"report in {write_evaluation_report(arguments.output / 'report.html', found)}")
    return 1 if any(isinstance(failure, IncompleteBagError) for failure in labelled.source.failures) else 0


def _each_by_itself(arguments: argparse.Namespace) -> int:
    from seg_perception.core.encodings.bit_depth import check_bit_depth
    from seg_perception.offboard.evaluation.datasets.bag import TRUTH
    from seg_perception.offboard.fleet.evaluate_work import EvaluateWork

    if arguments.dataset is not None:
        raise ConfigurationError("--dataset: expected --bag with several bags, --list or --executor ray")
    threads = worker_threads(arguments)
    models = [replace(model_choice(str(each), arguments), threads=threads) for each in arguments.model]
    work = EvaluateWork.of(
        models, _opened, truth=arguments.truth or TRUTH, topic=arguments.topic, score=arguments.score,
        report_frames=arguments.report_frames, bit_depth=check_bit_depth(arguments.bit_depth),
    )  # fmt: skip
    return run_on_fleet(work, bags_of(arguments.bag, arguments), arguments.output, arguments)


def _opened(models: Sequence[ModelChoice], opened: ExitStack) -> list[Subject]:
    """The models of a fleet's work or of the command."""
    from seg_perception.core.manifest import ENGINE_SUFFIX, load_manifest
    from seg_perception.offboard.evaluation.scheme import Subject
    from seg_perception.onboard.pipeline.opening import open_segmenter

    subjects: list[Subject] = []
    for choice in models:
        path = Path(choice.model)
        segmenter = opened.enter_context(closing(open_segmenter(choice, any_classes=True)))
        manifest = json.loads(load_manifest(path).to_json()) if path.suffix == ENGINE_SUFFIX else None
        name = _name(path, [each.name for each in subjects])
        subjects.append(Subject(name, choice.model, segmenter, segmenter.table, manifest))
    return subjects


def _data(arguments: argparse.Namespace) -> LabelledSet:
    """The labelled set."""
    from seg_perception.offboard.evaluation.datasets import open_dataset
    from seg_perception.offboard.evaluation.datasets.bag import TRUTH, read_bag

    own = {"--truth": arguments.truth, "--topic": arguments.topic}
    other = {"--images": arguments.images, "--format": "" if arguments.format == "auto" else arguments.format}
    wrong, right = (own, "--bag") if arguments.bag is None else (other, "--dataset")
    if odd := [name for name, value in wrong.items() if value]:
        raise ConfigurationError(f"{', '.join(odd)}: expected only with {right}")
    if arguments.bag is not None:
        return read_bag(arguments.bag[0], arguments.truth or TRUTH, arguments.topic)
    return open_dataset(arguments.dataset, arguments.images, arguments.format, _watch_files)


def _name(path: Path, taken: Sequence[str]) -> str:
    """The stem of a file without `.canonical`; with a number where another model has it, too."""
    stem = path.stem.removesuffix(".canonical") or path.stem
    names = [stem, *(f"{stem}-{number}" for number in range(2, len(taken) + 3))]
    return next(name for name in names if name not in taken)


def _notes(found: Evaluation) -> list[str]:
    data = found.data
    objects = ", ".join(f"{number} {group}" for group, number in data.objects.items())
    lines = [f"{data.name}: {data.frames} frames, {objects or 'no objects'}"]
    lines += [f"note: {note}" for note in found.notes]
    if data.missing:
        lines.append(f"missing: {len(data.missing)} images, such as {data.missing[0]}")
    lines += [f"skipped: {reason}" for reason in (*data.unreadable, *data.without_output)]
    lines.append("seconds: " + ", ".join(f"{name} {value:.1f}" for name, value in found.seconds.items()))
    return lines


def _watch(frames: Iterable[tuple[str, Frame]]) -> Iterable[tuple[str, Frame]]:
    """The frames; a progress bar where output goes to a terminal."""
    from tqdm import tqdm

    watched: Iterable[tuple[str, Frame]] = tqdm(frames, unit="frame", disable=None)
    return watched


def _watch_files(files: Sequence[Path]) -> Iterable[Path]:
    from tqdm import tqdm

    watched: Iterable[Path] = tqdm(files, unit="file", desc="labels", disable=None)
    return watched
