"""A replay from its options to its outcome: what a command does once, and a fleet does for every bag."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from seg_perception import __version__
from seg_perception.offboard.metrics.agreement import AgreementRule
from seg_perception.offboard.report.gallery import Shot
from seg_perception.onboard.pipeline.options import SegmenterOptions
from seg_perception.onboard.pipeline.segmenter import Segmenter

from .diff import Baseline
from .films import Films
from .inputs import Range, Recording, open_recording
from .page import ReplayReport, write_replay_report
from .picks import Picks
from .record import Record
from .replay import Replay, ReplayOptions, Watcher
from .writer import BagWriter


@dataclass(frozen=True, slots=True)
class ReplayJob:
    """What is replayed, and what comes of it.

    Attributes:
        paths: recordings, one after the other.
        output: the bag to be written.
        topics: image topics of bags; none for all of cameras.
        part: of each recording.
        copy: whether the messages of bags are copied, and the frames of videos and images as messages.
        options: how.
        against: a bag with what was published before, if there is something to compare with.
        report: file of the report, if there is to be one.
        video: file of a video of the overlays, if there is to be one.
        bit_depth: of 16-bit images, 8 to 16 or `auto`.
    """

    paths: tuple[Path, ...]
    output: Path
    topics: tuple[str, ...] = ()
    part: Range = field(default_factory=Range)
    copy: bool = False
    options: ReplayOptions = field(default_factory=ReplayOptions)
    against: Path | None = None
    report: Path | None = None
    video: Path | None = None
    bit_depth: str = "16"

    def recordings(self) -> list[Recording]:
        """Open them, so that what is missing is found before the work.

        Raises:
            SourceError: one cannot be read.
        """
        return [open_recording(path, self.topics, self.part, self.copy, self.bit_depth) for path in self.paths]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a replay.

    Attributes:
        record: the result of the frames.
        seconds: that it took.
        size: of the bag that was written, in bytes.
        earlier: what it was compared with, if anything.
        shots: chosen frames by kind, where a report was asked for.
    """

    record: Record
    seconds: float
    size: int
    earlier: Baseline | None
    shots: Mapping[str, Sequence[Shot]]

    def as_json(self) -> dict[str, Any]:
        """The same as plain values."""
        changes = {}
        if self.earlier is not None:
            changes = {"changes": {**asdict(self.earlier.total()), "differing": self.earlier.differing}}
        return {
            **self.record.as_json(),
            "seconds": round(self.seconds, 3),
            "frames_per_second": round(self.record.total / self.seconds, 2) if self.seconds else None,
            "bytes": self.size,
            **changes,
        }


def run_job(
    job: ReplayJob, segmenter: Segmenter, recordings: Sequence[Recording], watchers: Sequence[Watcher] = ()
) -> Outcome:
    """Replay.

    Args:
        job: what.
        segmenter: warmed up; it may be used again.
        recordings: of the job, open.
        watchers: are told of each frame.

    Raises:
        SegPerceptionError: a recording cannot be read, the output cannot be written, or the device failed.
    """
    cameras = {camera for recording in recordings for camera in recording.cameras}
    earlier = None
    if job.against is not None:
        earlier = Baseline(job.against, _rule(segmenter.options), cameras, job.options.namespace)
    picks = Picks(segmenter.spec.class_names, earlier=earlier) if job.report or earlier else None
    settings = _settings(job, segmenter.options)
    about = {"version": __version__, **segmenter.identity, **settings}
    with ExitStack() as stack:
        all_watchers: list[Watcher] = [*watchers, *([picks] if picks is not None else [])]
        if job.video is not None:
            all_watchers.append(stack.enter_context(Films(job.video, segmenter.spec.class_names, cameras)))
        writer = stack.enter_context(BagWriter(job.output, about))
        replay = Replay(segmenter, writer, job.options, all_watchers, cameras)
        for recording in recordings:
            replay.run(recording)
    size = job.output.stat().st_size
    outcome = Outcome(replay.record, replay.seconds, size, earlier, picks.shots() if picks is not None else {})
    if job.report is not None:
        compared = (job.against, earlier) if job.against is not None and earlier is not None else None
        page = ReplayReport(
            job.paths, job.output, size, replay.record, replay.seconds, segmenter.identity, settings, outcome.shots,
            compared,
        )  # fmt: skip
        write_replay_report(job.report, page)
    return outcome


def _rule(options: SegmenterOptions) -> AgreementRule:
    """Return what counts as a change: instances just above the threshold, below which none is published, may differ."""
    usual = AgreementRule()
    return replace(usual, score=min(1.0, options.select.score_threshold + usual.margin))


def _settings(job: ReplayJob, options: SegmenterOptions) -> dict[str, str]:
    """Return what a reader of the results should know, human-readable."""
    size = options.output_size
    return {
        "score_threshold": f"{options.select.score_threshold:g}",
        "min_pixels": f"{options.min_pixels}",
        "output_size": f"{size.scale:g}" if size.mode == "scale" else size.mode,
        "keep_other_classes": str(options.select.keep_other).lower(),
        "tracking": str(options.tracking is not None).lower(),
        "start": f"{job.part.start:g} s",
        "duration": f"{job.part.duration:g} s" if job.part.duration else "all",
        "speed": "as recorded" if job.options.realtime else "as fast as possible",
        "bit_depth": job.bit_depth,
    }
