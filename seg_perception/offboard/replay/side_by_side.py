"""The same model several times on a CPU, each with its own frame and its own share of the cores.

One model at a time leaves cores idle while results are selected, painted and written, and none of that can be had for
nothing on a machine whose cores the model can fill. So frames are detected side by side; then they are selected,
tracked and painted one after the other, in their order, as one model would have done it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from threading import Condition

from seg_perception.core.contract import ModelSpec
from seg_perception.core.errors import ModelOutputError
from seg_perception.core.frame import Frame
from seg_perception.core.instances import Detections, Segmentation
from seg_perception.onboard.pipeline.opening import ModelChoice, open_segmenter
from seg_perception.onboard.pipeline.options import SegmenterOptions
from seg_perception.onboard.pipeline.segmenter import Segmenter
from seg_perception.onboard.pipeline.trackers import Trackers

# Each model takes memory of its own.
_USUAL = 2
_Results = list[Segmentation | ModelOutputError]


def open_side_by_side(choice: ModelChoice, options: SegmenterOptions, count: int = 0) -> Segmenter | SideBySide:
    """Open a model several times where that is a gain; whoever gets it closes it.

    Args:
        choice: which model; the cores are shared out if it leaves the threads open.
        options: of the segmenters.
        count: how many; 0 for what suits this machine, which is one where the threads of the model are given.

    Raises:
        SegPerceptionError: the model or the class table cannot be used.
    """
    cores = len(os.sched_getaffinity(0))
    count = count or (1 if choice.threads else min(_USUAL, cores))
    own = choice if choice.threads else replace(choice, threads=cores // count if count > 1 else 0)
    first = open_segmenter(own, options)
    # What is no CPU has its own way of doing things side by side.
    on_cpu = first.identity["device"].lower().startswith("cpu")
    if count == 1 or not on_cpu or first.depth > 1 or first.largest_batch > 1:
        return first
    opened = [first]
    try:
        opened += [open_segmenter(own, options) for _ in range(count - 1)]
    except BaseException:
        for each in opened:
            each.close()
        raise
    return SideBySide(opened)


class SideBySide:
    """Several segmenters as one, for every frame of a recording."""

    largest_batch = 1

    def __init__(self, segmenters: Sequence[Segmenter]) -> None:
        """Take segmenters of one model with the same options; `close` closes them."""
        self._segmenters = tuple(segmenters)
        self._stack = ExitStack()
        # A backend is used by one thread only.
        self._threads = [self._stack.enter_context(ThreadPoolExecutor(1, "segmenter")) for _ in self._segmenters]
        self._begun = 0
        self._turn = 0
        self._turns = Condition()

    @property
    def depth(self) -> int:
        """How many frames may have begun and not ended: one for each model, and one that is fetched meanwhile."""
        return len(self._segmenters) + 1

    @property
    def spec(self) -> ModelSpec:
        """What the model says of itself."""
        return self._segmenters[0].spec

    @property
    def identity(self) -> dict[str, str]:
        """What runs here, for people."""
        return {**self._segmenters[0].identity, "side by side": f"{len(self._segmenters)}"}

    @property
    def options(self) -> SegmenterOptions:
        """Of all frames."""
        return self._segmenters[0].options

    @property
    def trackers(self) -> Trackers:
        """Of the cameras; to be replaced only while no frame is in flight."""
        return self._segmenters[0].trackers

    @trackers.setter
    def trackers(self, trackers: Trackers) -> None:
        for each in self._segmenters:
            each.trackers = trackers

    def warm_up(self) -> None:
        """See `Segmenter.warm_up`."""
        for each in self._segmenters:
            each.warm_up()

    def begin(self, frames: Sequence[Frame], semantic: bool = False) -> Future[_Results]:
        """The first half of the work: a frame is given to the model whose turn it is."""
        number, self._begun = self._begun, self._begun + 1
        place = number % len(self._segmenters)
        return self._threads[place].submit(self._work, number, self._segmenters[place], frames, semantic)

    def end(self, begun: Future[_Results]) -> _Results:
        """The second half; see `Segmenter.end`.

        Raises:
            FrameError: the frame cannot be decoded.
        """
        return begun.result()

    def close(self) -> None:
        """Release the models."""
        self._stack.close()
        for each in self._segmenters:
            each.close()

    def _work(self, number: int, segmenter: Segmenter, frames: Sequence[Frame], semantic: bool) -> _Results:
        found: list[Detections] | Exception
        try:
            found = segmenter.detect(frames)
        except Exception as error:
            found = error
        with self._turns:
            self._turns.wait_for(lambda: self._turn == number)
        try:
            if isinstance(found, Exception):
                raise found
            pairs = zip(frames, found, strict=True)
            return [segmenter.finish(*each, segmenter.options, semantic) for each in pairs]
        except ModelOutputError as error:
            return [error]
        finally:
            with self._turns:
                self._turn += 1
                self._turns.notify_all()
