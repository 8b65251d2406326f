"""How the worker gathers frames for the model: which go together, who waits for whom and for how long."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from integration.harness import wait_for

from seg_perception.core.errors import FrameError
from seg_perception.core.frame import Frame
from seg_perception.onboard.ros.ages import StampCheck
from seg_perception.onboard.ros.camera import Taken, WakeEvent
from seg_perception.onboard.ros.statistics import CameraStatistics, RateEstimator, StageTimes
from seg_perception.onboard.ros.worker import Worker

PERIOD = 0.1
WAIT = 0.3
# Everything here is a matter of tenths of a second.
pytestmark = pytest.mark.alone


class Delivering:
    """A camera without ROS: what is put into it lies there until it is taken."""

    def __init__(self, name: str, wake_event: WakeEvent) -> None:
        self.settings = SimpleNamespace(name=name)
        self.statistics = CameraStatistics()
        self.rhythm = RateEstimator()
        self.broken = False
        self._wake_event = wake_event
        self._lying: Taken | None = None

    def deliver(self) -> None:
        with self._wake_event.condition:
            if self._lying is not None:
                self.statistics.replaced()
            self.statistics.taken()
            self._lying = Taken(b"", time.monotonic())
            self._wake_event.condition.notify()

    def delivered_before(self) -> None:
        """As if it had sent a frame each period up to now."""
        for step in range(5, 0, -1):
            self.rhythm.arrived(time.monotonic() - step * PERIOD, 0)

    def take(self) -> Taken | None:
        with self._wake_event.condition:
            taken, self._lying = self._lying, None
        if taken is not None:
            self.rhythm.arrived(taken.arrived, 0)
        return taken

    def waiting(self) -> bool:
        return self._lying is not None

    def due(self, now: float, until: float) -> bool:
        return self.rhythm.due(now, until)

    def frame(self, taken: Taken) -> Frame:
        if self.broken:
            raise FrameError("size", "no image")
        # The time of arrival for a stamp tells frames of one camera apart.
        stamp = int(taken.arrived * 1e9)
        return Frame.from_bgr(np.zeros((1, 1, 3), np.uint8), stamp_ns=stamp, camera=self.settings.name)

    def judge(self, frame: Frame, taken: Taken, now_ns: int) -> StampCheck:
        return StampCheck(0.0, False)

    def latency(self, frame: Frame, now_ns: int) -> float:
        return 0.0

    def take_info(self) -> None:
        return None


class FakeSegmenter:
    """Takes `largest_batch` frames at once and notes when it got which; a batch takes `seconds` when it is fetched.

    Attributes:
        free: whether the model could begin with a batch at once.
    """

    def __init__(self, largest_batch: int) -> None:
        self.free = threading.Event()
        self.free.set()
        self.backend = SimpleNamespace(depth=2, largest_batch=largest_batch, wait=self.free.wait)
        self.batches: list[tuple[float, list[Frame]]] = []
        self.seconds = 0.0

    def begin(self, frames: list[Frame], semantic: bool) -> list[Frame]:
        self.batches.append((time.monotonic(), list(frames)))
        return list(frames)

    def end(self, begun: list[Frame]) -> list[Any]:
        time.sleep(self.seconds)
        return [SimpleNamespace(frame=frame, timings={}) for frame in begun]

    def names(self) -> list[list[str]]:
        return [sorted(frame.camera for frame in frames) for _, frames in self.batches]


class Bench:
    """A worker between such cameras and such a segmenter."""

    def __init__(self, cameras: str, largest_batch: int, batch_wait: float) -> None:
        wake_event = WakeEvent()
        self.cameras = {name: Delivering(name, wake_event) for name in cameras}
        self.segmenter = FakeSegmenter(largest_batch)
        self.published: list[tuple[float, str]] = []
        self.failures: list[BaseException] = []

        def outputs(name: str) -> Any:
            def publish(*arguments: object) -> bool:
                self.published.append((time.monotonic(), name))
                return True

            return SimpleNamespace(wants_semantic_map=lambda: False, publish=publish)

        pairs: Any = [(camera, outputs(name)) for name, camera in self.cameras.items()]
        segmenter: Any = self.segmenter
        self.worker = Worker(
            pairs,
            segmenter,
            wake_event,
            now_ns=time.time_ns,
            wake_executor=lambda: None,
            report=lambda *text: None,
            fail=self.failures.append,
            stages=StageTimes(),
            batch_wait=batch_wait,
        )


@pytest.fixture
def bench() -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(cameras: str = "abc", largest_batch: int = 3, batch_wait: float = WAIT) -> Bench:
        made.append(Bench(cameras, largest_batch, batch_wait))
        made[-1].worker.start()
        time.sleep(0.05)
        return made[-1]

    yield make
    for each in made:
        each.worker.stop()
        assert not each.failures


def test_frames_that_are_due_are_waited_for(bench: Callable[..., Bench]) -> None:
    table = bench()
    for camera in table.cameras.values():
        camera.delivered_before()
    for name in "abc":
        table.cameras[name].deliver()
        time.sleep(0.03)
    wait_for(lambda: len(table.published) == 3, "results")
    assert table.segmenter.names() == [["a", "b", "c"]]


def test_the_newest_frame_goes_even_after_a_wait(bench: Callable[..., Bench]) -> None:
    table = bench("ab", 2)
    table.cameras["b"].delivered_before()
    for name in "aab":
        table.cameras[name].deliver()
        time.sleep(0.03)
    wait_for(lambda: len(table.published) == 2, "results")
    ((_, frames),) = table.segmenter.batches
    ages = {frame.camera: time.monotonic() - frame.stamp_ns / 1e9 for frame in frames}
    assert abs(ages["a"] - ages["b"]) < 0.05
    assert table.cameras["a"].statistics.snapshot().dropped["superseded"] == 1


def test_a_camera_that_does_not_deliver_delays_the_others_by_the_wait_at_most(bench: Callable[..., Bench]) -> None:
    table = bench("ab", 2)
    table.cameras["b"].delivered_before()
    begin = time.monotonic()
    table.cameras["a"].deliver()
    wait_for(lambda: table.published, "result")
    # Seen as dead after three of its intervals it would be waited for no longer; the wait is shorter than that.
    assert WAIT - 2 * PERIOD < table.segmenter.batches[0][0] - begin < WAIT + 0.15
    wait_for(lambda: not table.cameras["b"].due(time.monotonic(), time.monotonic() + 9), "b counts as dead")
    begin = time.monotonic()
    table.cameras["a"].deliver()
    wait_for(lambda: len(table.published) == 2, "result")
    assert table.segmenter.batches[1][0] - begin < WAIT / 2, "nobody waits for the dead"


@pytest.mark.parametrize(("largest_batch", "batch_wait"), [(1, WAIT), (3, 0.0)])
def test_nobody_waits_without_a_gain_or_unless_asked_to(
    bench: Callable[..., Bench], largest_batch: int, batch_wait: float
) -> None:
    table = bench(largest_batch=largest_batch, batch_wait=batch_wait)
    for camera in table.cameras.values():
        camera.delivered_before()
    begin = time.monotonic()
    table.cameras["a"].deliver()
    wait_for(lambda: table.published, "result")
    assert table.segmenter.batches[0][0] - begin < WAIT / 2


def test_results_do_not_wait_for_the_frames_of_others(bench: Callable[..., Bench]) -> None:
    """The batch before is published while the next one is being gathered."""
    table = bench("ab", 2)
    table.segmenter.seconds = 0.02
    table.cameras["a"].deliver()
    wait_for(lambda: table.segmenter.batches, "first batch")
    table.cameras["b"].delivered_before()
    table.cameras["a"].deliver()
    wait_for(lambda: table.published, "its result")
    assert table.published[0][0] - table.segmenter.batches[0][0] < WAIT / 2
    wait_for(lambda: len(table.published) == 2, "second result")


def test_a_frame_that_cannot_be_read_leaves_the_one_in_flight_alone(bench: Callable[..., Bench]) -> None:
    table = bench("a", 1)
    camera, begin = table.cameras["a"], table.segmenter.begin

    def begin_and_deliver(frames: list[Frame], semantic: bool) -> list[Frame]:
        camera.broken = True
        camera.deliver()
        return begin(frames, semantic)

    table.segmenter.begin = begin_and_deliver  # type: ignore[method-assign]
    camera.deliver()
    wait_for(lambda: camera.statistics.snapshot().processed, f"the result of the first; {table.failures}")
    assert camera.statistics.snapshot().dropped["size"] == 1


def test_the_next_frame_is_taken_when_the_model_is_free_and_before_results_are_published(
    bench: Callable[..., Bench],
) -> None:
    table = bench("a", 1)
    camera, segmenter = table.cameras["a"], table.segmenter
    segmenter.free.clear()
    camera.deliver()
    wait_for(lambda: segmenter.batches, "first batch")
    for _ in range(3):
        camera.deliver()
        time.sleep(0.02)
    newest = camera._lying
    assert newest is not None
    assert len(segmenter.batches) == 1, "the model is busy, so the frame stays where a fresher one takes its place"
    assert not table.published
    segmenter.free.set()
    wait_for(lambda: len(table.published) == 2, "both results")
    assert segmenter.batches[1][1][0].stamp_ns == int(newest.arrived * 1e9)
    assert segmenter.batches[1][0] < table.published[0][0], "the model works while results are published"


@pytest.mark.parametrize("batch_wait", [0.0, 0.02])
def test_a_fast_camera_does_not_starve_slow_ones(bench: Callable[..., Bench], batch_wait: float) -> None:
    """One floods, five send at 10 Hz, and a call takes two frames and more time than the flood leaves."""
    table = bench("abcdef", 2, batch_wait)
    table.segmenter.seconds = 0.02
    end, sent = time.monotonic() + 2.0, Counter[str]()

    def send(name: str, period: float) -> None:
        while time.monotonic() < end:
            table.cameras[name].deliver()
            sent[name] += 1
            time.sleep(period)

    threads = [threading.Thread(target=send, args=(name, 0.002 if name == "a" else PERIOD)) for name in "abcdef"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    served = Counter(name for _, name in table.published)
    assert all(served[name] >= 0.6 * sent[name] for name in "bcdef"), (served, sent)
    assert served["a"] >= served["b"]
