"""From recordings to a data set for review."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType

import cv2
from tqdm import tqdm

from seg_perception.core.class_tables import AUTO
from seg_perception.core.encodings.bit_depth import check_bit_depth
from seg_perception.core.encodings.raw import to_bgr
from seg_perception.core.errors import ConfigurationError, FrameError, ModelOutputError, SourceError
from seg_perception.core.frame import Frame
from seg_perception.offboard.data.base import FrameSource
from seg_perception.offboard.data.images import open_source
from seg_perception.onboard.backend.base import RunOptions
from seg_perception.onboard.backend.host.select import SelectOptions
from seg_perception.onboard.pipeline.opening import ModelChoice, open_segmenter
from seg_perception.onboard.pipeline.options import SegmenterOptions
from seg_perception.onboard.pipeline.track import TrackerOptions

from .dataset import Dataset
from .observe import Model, Observation, Observer
from .picks import Moment, Picker, PickOptions
from .records import CLASSES, GROUPS, LabelledFrame, MaskStyle, QaFlag, categories_of
from .temporal import Window

_MODEL = ("family", "sha256", "precision")
_IMAGES = {"jpg": [cv2.IMWRITE_JPEG_QUALITY, 95], "png": [cv2.IMWRITE_PNG_COMPRESSION, 3]}
# More tracks than a stream can have: the number of an instance has 16 bits.
TRACKS = 1 << 16
# Seconds between two writings of what is made of all records, and how much longer than one of them takes at least.
_CHECKPOINT, _PATIENCE = 5.0, 20.0


@dataclass(frozen=True, slots=True)
class LabelOptions:
    """What is to be labelled, and how.

    Attributes:
        model: canonical model or engine.
        picks: which frames.
        other_model: the one that `picks.disagree` compares with; it needs no class in common with the first.
        style: how masks are written.
        categories: `groups` for the road groups, `classes` for the model's own classes.
        classes: class table of either model.
        score: lowest score of a label.
        min_pixels: smallest label.
        images: `jpg` (quality 95) or `png` (without loss).
        weather: of all recordings, for the images' `weather`; empty for unknown.
        backend: that runs the models; empty for the one of the file's suffix.
        run: how they are run.
        bit_depth: of 16-bit images, 8 to 16 or `auto`.
    """

    model: Path
    picks: PickOptions = field(default_factory=lambda: PickOptions(every=10))
    other_model: Path | None = None
    style: MaskStyle = field(default_factory=MaskStyle)
    categories: str = GROUPS
    classes: str = AUTO
    score: float = 0.4
    min_pixels: int = 16
    images: str = "jpg"
    weather: str = ""
    backend: str = ""
    run: RunOptions = field(default_factory=RunOptions)
    bit_depth: str = "16"

    def __post_init__(self) -> None:
        if self.images not in _IMAGES:
            raise ConfigurationError(f"images: expected {' or '.join(_IMAGES)}, got {self.images!r}")
        check_bit_depth(self.bit_depth)
        if bool(self.picks.disagree) != (self.other_model is not None):
            raise ConfigurationError("frames in which two models disagree: expected a second model and how many frames")


@dataclass(frozen=True, slots=True)
class LabelSummary:
    """What came of it.

    Attributes:
        seen: frames looked at.
        chosen: frames of the data set.
        repeated: chosen ones left out because the same image was there.
        picks: chosen frames by the rule that wanted them.
        objects: labelled, by category.
        failures: what could not be read, by source.
        warnings: what was odd about images that could be read.
    """

    seen: int
    chosen: int
    repeated: int
    picks: Mapping[str, int]
    objects: Mapping[str, int]
    failures: Mapping[str, Sequence[str]]
    warnings: Sequence[str] = ()


class Labeller:
    """The models, opened once for any number of data sets; to be used with `with`."""

    def __init__(self, options: LabelOptions) -> None:
        """Open the models.

        Raises:
            ModelError, BackendUnavailable, ConfigurationError: one of them cannot be opened.
        """
        self.options = options
        self._models: list[Model] = []
        try:
            for path in filter(None, (options.model, options.other_model)):
                self._models.append(_open(path, options))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Labeller:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the models."""
        for each in self._models:
            each.segmenter.close()

    @property
    def identity(self) -> dict[str, str]:
        """Human-readable facts about what runs here."""
        return self._models[0].segmenter.identity

    def label(self, paths: Sequence[Path], folder: Path, resume: bool = False) -> LabelSummary:
        """Label recordings into one data set.

        When it is interrupted, the data set holds what was chosen up to then.

        Args:
            paths: bags, videos, images and folders of them; one given twice is read once.
            folder: of the data set.
            resume: go on where a run with the same options stopped: recordings that were finished are not read again,
                the one it stopped in is read from its start, so that its tracks come out the same.

        Raises:
            ConfigurationError: see `Dataset`; or nothing can be written any more.
            SourceError: none of the recordings can be opened.
        """
        model = self._models[0]
        categories = categories_of(self.options.categories, model.segmenter.spec.class_names, model.table)
        if not categories:
            raise ConfigurationError(f"{self.options.model}: expected classes of the road groups, it has none")
        dataset = Dataset(folder, categories, self.options.style, self._how(), resume)
        ran = [each.segmenter.identity for each in self._models]
        dataset.state.made_by += [each for each in ran if each not in dataset.state.made_by]
        other = self._models[1] if len(self._models) > 1 else None
        observer = Observer(model, categories, self.options.categories == CLASSES, other)
        labelling = _Labelling(dataset, observer, self.options)
        try:
            labelling.run(list(dict.fromkeys(paths)))
        finally:
            objects = dataset.write()
        state = dataset.state
        return LabelSummary(
            state.seen, len(dataset), state.repeated, labelling.picks, objects, state.failures, labelling.warnings
        )

    def _how(self) -> dict[str, object]:
        """Return what a run must have in common with the one that it goes on with."""
        options = self.options
        names = ("categories", "classes", "score", "min_pixels", "images", "weather")
        return {
            # Not where they run: another machine may go on.
            "models": [{name: each.segmenter.identity.get(name) for name in _MODEL} for each in self._models],
            "picks": asdict(options.picks),
            "style": asdict(options.style),
            **{name: getattr(options, name) for name in names},
            # Data sets that were begun before there was this option go on.
            **({} if options.bit_depth == "16" else {"bit_depth": options.bit_depth}),
        }


@dataclass(frozen=True, slots=True)
class _Pending:
    """A chosen frame whose neighbours are not all known yet."""

    frame: LabelledFrame
    image: bytes


class _Labelling:
    """One run into one data set."""

    def __init__(self, dataset: Dataset, observer: Observer, options: LabelOptions) -> None:
        self._dataset, self._observer, self._options = dataset, observer, options
        self._start()
        self._windows: dict[str, Window] = {}
        self._pending: dict[int, _Pending] = {}
        self._written, self._took = time.monotonic(), 0.0
        self._seen = self._repeated = 0
        self.warnings: list[str] = []

    def _start(self) -> None:
        """Begin a recording with nothing known but the data set, as a run that goes on would."""
        self._picker = Picker(self._options.picks, self._dataset.picks(self._options.picks.apart))
        self._digests = self._dataset.digests

    @property
    def picks(self) -> Mapping[str, int]:
        """Chosen frames by the rule that wants them."""
        return self._picker.counts

    def run(self, paths: Sequence[Path]) -> None:
        state = self._dataset.state
        state.sources += [str(path) for path in paths if str(path) not in state.sources]
        # From the first second on there is a data set that can be read.
        self._checkpoint(now=True)
        failed: list[SourceError] = []
        for path in paths:
            if str(path) in state.finished:
                continue
            try:
                source = open_source(path)
                source.bit_depth = self._options.bit_depth
            except SourceError as error:
                failed.append(error)
                state.failures[str(path)] = [str(error)]
                continue
            self._seen = self._repeated = 0
            self._dataset.forget(str(path))
            self._dataset.begin(str(path))
            self._start()
            self._source(str(path), source)
            state.seen += self._seen
            state.repeated += self._repeated
            state.finished.append(str(path))
            self._dataset.settle()
            self._checkpoint(now=True)
        if len(failed) == len(paths):
            raise failed[0]

    def _source(self, path: str, source: FrameSource) -> None:
        self._observer.begin(source.sequence)
        self._windows, self._pending = {}, {}
        faults: list[str] = []
        frames = tqdm(source, Path(path).name, _count(source), unit="frame", disable=None)
        try:
            for index, (name, frame) in enumerate(frames):
                self._seen += 1
                try:
                    self._frame(path, source, index, name, frame)
                except (FrameError, ModelOutputError) as error:
                    faults.append(f"{name}: {error}")
                self._checkpoint()
        except SourceError as error:
            faults.append(str(error))
        finally:
            frames.close()
        for window in self._windows.values():
            for index, concerns in window.flush():
                self._commit(index, concerns)
        faults += [str(each) for each in source.failures]
        self.warnings += source.warnings.lines()
        self._dataset.state.failures.pop(path, None)
        if faults:
            self._dataset.state.failures[path] = faults

    def _frame(self, path: str, source: FrameSource, index: int, name: str, frame: Frame) -> None:
        seen = self._observer.look(frame)
        name = self._dataset.name_for(path, index, name)
        disagreement = seen.other.agreement.disagreement if seen.other else 0.0
        moment = Moment.of(path, frame.camera, frame.stamp_ns, name, self._options.picks.apart)
        picks = self._picker.wanted(name, frame, moment, seen.uncertainty, disagreement)
        if picks and self._dataset.place_of(name) is None:
            self._choose(path, index, name, picks, seen)
        if not source.sequence:
            self._commit(index, [])
            return
        window = self._windows.setdefault(frame.camera, Window())
        for known, concerns in window.push(index, self._observer.observations(seen)):
            self._commit(known, concerns)

    def _choose(self, path: str, index: int, name: str, picks: Mapping[str, float], seen: Observation) -> None:
        """Make the labels and the image of a frame, unless the same image is there."""
        frame = seen.result.frame
        image = to_bgr(frame)
        digest = hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest()
        if digest in self._digests:
            self._repeated += 1
            return
        self._digests.add(digest)
        objects, concerns = self._observer.describe(seen)
        first = TRACKS * self._dataset.stream(path, frame.camera)
        suffix = self._options.images
        done, data = cv2.imencode(f".{suffix}", image, _IMAGES[suffix])
        if not done:
            raise FrameError("size", f"{name}: cannot be written as {suffix}; choose another with --image-format")
        labelled = LabelledFrame(
            f"{name}.{suffix}", frame.width, frame.height,
            tuple(replace(each, track=first + each.track if each.track else 0) for each in objects),
            path, index, frame.camera, frame.stamp_ns, self._options.weather, digest, picks, tuple(concerns),
        )  # fmt: skip
        self._pending[index] = _Pending(labelled, data.tobytes())

    def _commit(self, index: int, concerns: Sequence[QaFlag]) -> None:
        """Write a chosen frame, now that its neighbours are known, and take back those that have to go for it."""
        pending = self._pending.pop(index, None)
        if pending is None:
            return
        frame = replace(pending.frame, concerns=(*pending.frame.concerns, *concerns))
        apart = self._options.picks.apart
        moment = Moment.of(frame.source, frame.camera, frame.stamp_ns, frame.name, apart)
        gone = self._picker.keep(frame.name, frame.picks, moment)
        if frame.name not in gone:
            self._dataset.add(frame, pending.image)
        else:
            self._digests.discard(frame.digest)
        for name in gone:
            if name != frame.name:
                self._digests.discard(self._dataset.drop(name))

    def _checkpoint(self, now: bool = False) -> None:
        begin = time.monotonic()
        if now or begin - self._written > max(_CHECKPOINT, _PATIENCE * self._took):
            self._dataset.write()
            self._written = time.monotonic()
            self._took = self._written - begin


def _open(path: Path, options: LabelOptions) -> Model:
    run = options.run
    choice = ModelChoice(str(path), options.backend, run.device, run.threads, options.classes)
    kept = SegmenterOptions(
        SelectOptions(options.score), min_pixels=options.min_pixels, tracking=TrackerOptions()
    )  # fmt: skip
    segmenter = open_segmenter(choice, kept)
    return Model(segmenter, segmenter.table)


def _count(source: FrameSource) -> int | None:
    try:
        return len(source)
    except TypeError:
        return None
