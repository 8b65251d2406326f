"""A bag with its truth in it: what `seg_perception streetworld --bag` writes.

Truth are an instance map (`sensor_msgs/Image`, mono16) and detections (`vision_msgs/Detection2DArray`) under the stamp
of the image they belong to, in the form in which the node publishes: ids are track numbers, first results road groups.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from seg_perception.core.classes import NO_GROUP, ROAD_GROUPS
from seg_perception.core.encodings.bit_depth import BitDepths
from seg_perception.core.errors import IncompleteBagError, SourceError
from seg_perception.core.frame import Frame
from seg_perception.offboard.data.bags.source import BagImages
from seg_perception.offboard.data.base import FrameSource, WarningCounts
from seg_perception.offboard.data.published import PublishedFrame, read_published
from seg_perception.offboard.metrics.compact import CompactMask

from .labelled import LabelledSet, TruthBuilder

KIND = "bag"
TRUTH = "/ground_truth"


def read_bag(path: Path, truth: str = TRUTH, topic: str = "") -> LabelledSet:
    """Read the truth of a bag.

    Args:
        path: of the bag.
        truth: name under which `instance_map` and `detections` are.
        topic: of the images; empty for the only one next to the truth.

    Raises:
        SourceError: the bag cannot be read, has no truth, or several topics of images to choose from.
        BackendUnavailable: rosbags is not installed.
    """
    truth = truth.rstrip("/")
    images = BagImages(path, topics=(topic,) if topic else ())
    if len(images.cameras) != 1:
        raise SourceError(
            f"{path}: expected one topic of images, got {', '.join(images.cameras)}; choose one with --topic"
        )
    builder = TruthBuilder(ROAD_GROUPS)
    numbers: dict[int, int] = {}
    faults: list[str] = []
    try:
        for frame in read_published(path, f"{truth}/instance_map", f"{truth}/detections", faults):
            numbers[frame.stamp_ns] = _add(builder, path, frame)
    except SourceError as error:
        raise SourceError(f"{error}; a bag can only be evaluated with its truth, name it with --truth") from error
    labels = builder.labels(path)
    return LabelledSet(KIND, labels, _BagFrames(path, images, numbers, faults))


def _add(builder: TruthBuilder, path: Path, frame: PublishedFrame) -> int:
    height, width = frame.pixels.shape
    image = builder.add_image(path / f"{frame.stamp_ns}", width, height, stamp_ns=frame.stamp_ns, sequence=path.stem)
    for number, group, box in zip(
        frame.numbers.tolist(), frame.groups.tolist(), frame.boxes_camera.tolist(), strict=True
    ):
        if group != NO_GROUP:
            x1, y1, x2, y2 = box
            mask = CompactMask.of(frame.pixels == number)
            builder.add(image, group + 1, mask, track_id=number, bbox=[x1, y1, x2 - x1, y2 - y1])
    return image


class _BagFrames(FrameSource):
    """The images of a bag that have truth, under the numbers of the truth.

    Images without truth are failures, and so is what the bag lost of its images or its truth.
    """

    def __init__(self, path: Path, images: BagImages, numbers: dict[int, int], truth_faults: Sequence[str]) -> None:
        super().__init__(sequence=True)
        self._truth_faults = [IncompleteBagError(f"{path}: {fault}") for fault in truth_faults]
        self._path, self._images, self._numbers = path, images, numbers

    def __iter__(self) -> Iterator[tuple[str, Frame]]:
        self.failures, self.warnings = [], WarningCounts()
        depths = BitDepths(self.bit_depth)
        left = dict(self._numbers)
        without = 0
        for _, frame in self._images:
            # An image that was recorded twice is evaluated once.
            number = left.pop(frame.stamp_ns, None)
            if number is None:
                without += 1
            else:
                deep = depths.apply(frame)
                self.warnings.add(str(number), deep)
                yield str(number), deep
        for camera, hint in depths.at_end():
            self.warnings.add_warning(camera, hint)
        # Both readers tell of what the whole bag lost.
        told = {str(failure) for failure in self._images.failures}
        truth_faults = [fault for fault in self._truth_faults if str(fault) not in told]
        self.failures = [*self._images.failures, *truth_faults]
        if without:
            what = f"{without} images have no truth of their stamp, or come again"
            self.failures.append(SourceError(f"{self._path}: {what}"))

    def __len__(self) -> int:
        return len(self._numbers)
