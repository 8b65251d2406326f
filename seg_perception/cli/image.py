"""`seg_perception image`: images, folders and videos through the pipeline, into files."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from seg_perception.core.errors import ConfigurationError, SegPerceptionError

from .model_arguments import add_model_arguments, model_choice, model_line

if TYPE_CHECKING:
    from seg_perception.core.frame import Frame
    from seg_perception.offboard.data.base import FrameSource
    from seg_perception.onboard.pipeline.options import SegmenterOptions
    from seg_perception.onboard.pipeline.segmenter import Segmenter

HELP = "segment images, folders of images or videos, and write overlays, instance maps and instances"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="image, folder of images, or video")
    parser.add_argument("--model", type=Path, required=True, metavar="M", help="canonical model (.onnx)")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder for the results")
    parser.add_argument("--score", type=float, default=0.25, help="lowest score (default: %(default)s)")
    parser.add_argument("--keep-other", action="store_true", help="also classes of no road group")
    parser.add_argument("--min-pixels", type=int, default=16, help="smallest instance (default: %(default)s)")
    parser.add_argument(
        "--coco",
        type=Path,
        metavar="RESULTS.json",
        help="write COCO results for evaluation: every class of the model and no selection, scores from --score on, "
        "each instance's own mask; the image id is the integer in the file name. Maps and overlays then show every "
        "class from score 0.25 on, and how well the maps match those masks is reported",
    )
    add_model_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Process everything; 1 when something had to be skipped."""
    from seg_perception.core.files import writable_folder
    from seg_perception.offboard.data.images import open_source
    from seg_perception.onboard.pipeline.opening import open_segmenter

    if any(path.is_dir() and path.resolve() == arguments.output.resolve() for path in arguments.paths):
        raise ConfigurationError(
            f"output folder {arguments.output}: it is a folder of input, where results would become input next time; "
            "choose another with -o"
        )
    writable_folder(arguments.output)
    sources = [open_source(path) for path in arguments.paths]
    for source in sources:
        source.bit_depth = arguments.bit_depth
    if arguments.coco is not None and any(source.fps for source in sources):
        raise ConfigurationError("--coco: expected images with image ids in their names, got a video")
    with closing(open_segmenter(model_choice(str(arguments.model), arguments), _options(arguments))) as segmenter:
        print(model_line(segmenter.identity))
        return _process(segmenter, sources, arguments)


def _options(arguments: argparse.Namespace) -> SegmenterOptions:
    from seg_perception.onboard.backend.host.select import SelectOptions
    from seg_perception.onboard.pipeline.options import SegmenterOptions

    if arguments.coco is None:
        select = SelectOptions(arguments.score, keep_other=arguments.keep_other)
        return SegmenterOptions(select, min_pixels=arguments.min_pixels)
    shown = max(arguments.score, 0.25)
    return SegmenterOptions(SelectOptions(shown, group_iou=1.0, keep_other=True), min_pixels=0)


def _process(segmenter: Segmenter, sources: list[FrameSource], arguments: argparse.Namespace) -> int:
    from .result_files import ResultFiles

    files = ResultFiles(arguments.output, arguments.paths, segmenter.spec.class_names)
    coco = None
    if arguments.coco is not None:
        from .coco_results import CocoResults

        coco = CocoResults(segmenter, arguments.score, arguments.classes)
    skipped: list[str] = []
    for source, name, frame in _frames(sources):
        try:
            image_id = coco.image_id(name) if coco is not None else 0
            begun = segmenter.begin([frame], segmenter.spec.class_map)
            (result,) = segmenter.end(begun)
            if isinstance(result, SegPerceptionError):
                raise result
            if coco is not None:
                coco.add(image_id, begun.job, result)
            files.add(source, name, result, sources[source].fps)
        except ConfigurationError:
            raise
        except SegPerceptionError as error:
            skipped.append(f"{name}: {error}")
    files.close()
    print(files.summary())
    if coco is not None:
        coco.write(arguments.coco)
        print(coco.summary())
    for line in (line for source in sources for line in source.warnings.lines()):
        print(f"warning: {line}")
    skipped += [str(failure) for source in sources for failure in source.failures]
    for path, each in zip(arguments.paths, sources, strict=True):
        if each.ignored:
            print(_ignored(path, each.ignored))
    for reason in skipped:
        print(f"skipped: {reason}")
    return 1 if skipped else 0


def _ignored(folder: Path, names: Sequence[str]) -> str:
    """Return what of a folder was left out; videos by name, because they look as if they belonged."""
    from seg_perception.offboard.data.video import VIDEO_SUFFIXES

    videos = [name for name in names if name.lower().endswith(VIDEO_SUFFIXES)]
    listed = f", among them videos, which are to be given by their own paths: {', '.join(videos)}" if videos else ""
    return f"ignored: {len(names)} files in {folder} that are no images{listed}"


def _frames(sources: list[FrameSource]) -> Iterator[tuple[int, str, Frame]]:
    """Number of the source, name and frame of everything there is; a progress bar where output goes to a terminal."""
    from tqdm import tqdm

    with tqdm(total=_count(sources), unit="frame", disable=None) as bar:
        for number, source in enumerate(sources):
            for name, frame in source:
                yield number, name, frame
                bar.update()


def _count(sources: list[FrameSource]) -> int | None:
    """Return how many frames there are, or None where a video does not say."""
    try:
        return sum(map(len, sources))
    except TypeError:
        return None
