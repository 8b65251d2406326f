"""Where the time of a batch goes on the GPU, and how far that is from what the memory bus allows.

Stages are timed by marks between the pieces that a `Slot` queues; the whole as it really runs, captured. The floor of a
stage is the least number of bytes it must move over a bandwidth measured in the same run, and of the engine its time
alone. Where a cache holds what the stage before has written, a stage may be faster than its floor.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.contract import ModelSpec
from seg_perception.core.frame import ENCODINGS, Frame
from seg_perception.core.geometry import ResizeGeometry

from ...base import Selected, SelectionParams
from .backend import CudaBackend, CudaJob
from .device import Device, Stream
from .slot import Step

_PINNED_BYTES = 64 << 20
_COPIES = 9
_WARM_UP = 5
# Share of the free memory that measuring may take: three blocks.
_SHARE = 8
_ALIGNMENT = 256


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """One stage of a batch.

    Attributes:
        name: as in `Slot.steps`.
        seconds: float64 `[rounds]`, on the GPU.
        moved: the least bytes that it must read and write, on average over the batches; 0 for the engine.
        floor: seconds below which it cannot come, unless a cache helps.
    """

    name: str
    seconds: NDArray[np.float64]
    moved: int
    floor: float


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """Bytes per second of large copies; those on the device count what is read and what is written.

    Attributes:
        to_device, to_host: infinity where GPU and CPU share their memory and nothing is copied.
        on_device: within device memory.
    """

    to_device: float
    to_host: float
    on_device: float


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """What was measured.

    Attributes:
        stages: in their order, queued piece by piece.
        graph: float64 `[rounds]`, seconds on the GPU of the whole, as it really runs.
        obstacle: why it is not a captured graph; empty where it is.
        wall: float64 `[rounds]`, seconds from frames to results, one batch at a time.
        host: seconds `[rounds]` of the CPU in each part of `wall`; `gpu` is the wait.
        alone, together: frames per second with one batch and with two batches in flight.
        bandwidth: measured between the rounds.
        painted: instances on each map of the batches that were profiled.
        allocations: blocks of memory that were taken after the warm-up.
        memory: bytes in use on the GPU by all programs.
    """

    stages: list[Stage]
    graph: NDArray[np.float64]
    obstacle: str
    wall: NDArray[np.float64]
    host: dict[str, NDArray[np.float64]]
    alone: float
    together: float
    bandwidth: Bandwidth
    painted: list[int]
    allocations: int
    memory: int


def profile(
    backend: CudaBackend,
    batches: Sequence[Sequence[Frame]],
    params: Callable[[Frame], SelectionParams],
    rounds: int,
    block_bytes: int = 256 << 20,
) -> Profile:
    """Measure a backend.

    Args:
        backend: nothing of it is in flight.
        batches: frames, one per camera; they are taken in turn.
        params: what is painted of a frame.
        rounds: how often each thing is measured, at least; of stages each batch is measured at least once.
        block_bytes: of the copies that measure the bandwidth, beyond every cache; less where there is little memory.

    Raises:
        ModelOutputError: the model produced NaN or infinity.
        DeviceError: the device failed.
    """
    device = backend.device
    work = [(frames, [params(frame) for frame in frames]) for frames in batches]
    with device.active():
        for number in range(_WARM_UP + 2 * backend.depth + len(work)):
            _results(backend.start(*work[number % len(work)]))
        taken = device.allocations
        wall, host = _walls(backend, work, rounds)
        alone, together = (_frames_per_second(backend, work, rounds, depth) for depth in (1, backend.depth))
        allocations = device.allocations - taken
        free, total = device.memory_info()
        samples = _Measurements()
        with Ruler(device, block_bytes) as ruler:
            for frames, selection in work:
                samples.add(backend, frames, selection, ceil(rounds / len(work)), ruler)
    return Profile(
        samples.result(ruler.bandwidth),
        np.array(samples.graph),
        backend.captures.obstacle,
        wall,
        host,
        alone,
        together,
        ruler.bandwidth,
        samples.painted,
        allocations,
        total - free,
    )


def memory_in_use() -> int:
    """Bytes that all programs take on the GPU, this one's context included.

    Raises:
        BackendUnavailable: there is no GPU, or something that opening it needs is absent.
        DeviceError: CUDA failed.
    """
    from .pycuda_device import PycudaDevice

    device = PycudaDevice()
    try:
        with device.active():
            free, total = device.memory_info()
    finally:
        device.close()
    return total - free


def letterbox_bytes(frame: Frame, geometry: ResizeGeometry, network_bytes: int) -> int:
    """The least bytes that a letterbox reads and writes: whole rows, of those that it needs.

    Each row of the content needs two rows of an interleaved image and four of a mosaic.
    """
    layout = ENCODINGS[frame.encoding]
    row = frame.width * layout.bytes_per_pixel
    per_row = 4 if frame.encoding.startswith("bayer") else 2
    rows = min(frame.height, per_row * geometry.content_height)
    chroma = min(frame.rows - frame.height, per_row * geometry.content_height)
    return (rows + chroma) * row + network_bytes


def paint_bytes(spec: ModelSpec, mask_type: np.dtype[np.floating], boxes: NDArray[np.float32], map_bytes: int) -> int:
    """The least bytes that painting reads and writes: the cells within the boxes, and the maps.

    Args:
        spec: the model.
        mask_type: of its masks.
        boxes: float32 `[N, 4]`, x1 y1 x2 y2 in network pixels, of what is painted.
        map_bytes: of all maps.
    """
    if spec.mask_frame == "box":
        cells = len(boxes) * spec.mask_width * spec.mask_height
    else:
        across = spec.mask_width / spec.network_width
        down = spec.mask_height / spec.network_height
        cells = sum(
            _cells(x1 * across, x2 * across, spec.mask_width) * _cells(y1 * down, y2 * down, spec.mask_height)
            for x1, y1, x2, y2 in boxes.tolist()
        )
    return cells * mask_type.itemsize + map_bytes


class Ruler:
    """Times work on a stream with marks, while the CPU is out of the way, and measures bandwidths."""

    def __init__(self, device: Device, block_bytes: int) -> None:
        free, _ = device.memory_info()
        size = min(block_bytes, free // _SHARE) // _ALIGNMENT * _ALIGNMENT
        self._device = device
        self._size = max(size, _ALIGNMENT)
        self._marks = [device.event(), device.event()]
        self._blocks: list[int] = []
        self._copy = np.inf
        self._queueing: dict[int, deque[float]] = {}
        self.bandwidth = Bandwidth(np.inf, np.inf, np.inf)

    def __enter__(self) -> Ruler:
        device, size = self._device, self._size
        stream = device.stream()
        try:
            self._blocks = [device.memory(size), device.memory(size)]
            target, source = self._blocks
            on_device = self._copy_seconds(stream, lambda: device.copy(target, source, size, stream))
            part, to_device, to_host = 0, 0.0, 0.0
            if not device.integrated:
                # No cache is in the way there, so that less of the host's memory does.
                part = min(size, _PINNED_BYTES)
                with _pinned(device, part) as array:
                    to_device = self._copy_seconds(stream, lambda: device.copy_in(target, array, stream))
                    to_host = self._copy_seconds(stream, lambda: device.copy_out(array, source, stream))
        except BaseException:
            self.__exit__()
            raise
        self._copy = on_device
        rates = [part / seconds if seconds else np.inf for seconds in (to_device, to_host)]
        self.bandwidth = Bandwidth(rates[0], rates[1], 2 * size / on_device)
        return self

    def __exit__(self, *_: object) -> None:
        for block in self._blocks:
            self._device.free(block)
        self._blocks.clear()

    def seconds(self, stream: Stream, pieces: Sequence[Callable[[], object]]) -> list[float]:
        """Time of each piece on the GPU, which is kept busy until all of them are queued.

        Without that, a piece that takes less time than the CPU needs to queue it would seem as slow as the CPU.
        """
        while len(self._marks) <= len(pieces):
            self._marks.append(self._device.event())
        marks = self._marks[: len(pieces) + 1]
        target, source = self._blocks
        # Twice the usual time, by as many pieces, so that a slower round is covered as well.
        usual = self._queueing.setdefault(len(pieces), deque(maxlen=_COPIES))
        for _ in range(max(1, ceil(2 * float(np.median(usual)) / self._copy)) if usual else 1):
            self._device.copy(target, source, self._size, stream)
        begin = perf_counter()
        marks[0].record(stream)
        for piece, mark in zip(pieces, marks[1:], strict=True):
            piece()
            mark.record(stream)
        usual.append(perf_counter() - begin)
        stream.wait()
        return [later.seconds_since(earlier) for earlier, later in pairwise(marks)]

    def _copy_seconds(self, stream: Stream, copy: Callable[[], None]) -> float:
        """Median time of a copy."""
        found = []
        for _ in range(_COPIES + 1):
            self._marks[0].record(stream)
            copy()
            self._marks[1].record(stream)
            stream.wait()
            found.append(self._marks[1].seconds_since(self._marks[0]))
        return float(np.median(found[1:]))


@contextmanager
def _pinned(device: Device, size: int) -> Iterator[NDArray[np.uint8]]:
    block = device.pinned(size)
    try:
        # Nobody measures pages that were never written.
        block.array.fill(165)
        yield block.array
    finally:
        device.free(block)


def _results(job: CudaJob) -> list[Selected]:
    results = []
    for result in job.painted():
        if not isinstance(result, Selected):
            raise result
        results.append(result)
    return results


_Work = Sequence[tuple[Sequence[Frame], list[SelectionParams]]]


def _walls(
    backend: CudaBackend, work: _Work, rounds: int
) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]:
    """Seconds from frames to results, and of the CPU's parts of that."""
    wall, parts = np.empty(rounds), list[dict[str, float]]()
    for number in range(rounds):
        begin = perf_counter()
        job = backend.start(*work[number % len(work)])
        _results(job)
        wall[number] = perf_counter() - begin
        parts.append(dict(job.timings))
    return wall, {name: np.array([part[name] for part in parts]) for name in parts[0]}


def _frames_per_second(backend: CudaBackend, work: _Work, rounds: int, depth: int) -> float:
    """Frames per second with up to `depth` batches in flight."""
    jobs: list[CudaJob] = []
    frames = 0
    begin = perf_counter()
    for number in range(rounds):
        batch, selection = work[number % len(work)]
        jobs.append(backend.start(batch, selection))
        frames += len(batch)
        if len(jobs) == depth:
            _results(jobs.pop(0))
    for job in jobs:
        _results(job)
    return frames / (perf_counter() - begin)


class _Measurements:
    """What was measured of some batches: seconds by stage, of the whole and of the engine alone."""

    def __init__(self) -> None:
        self.stages: dict[str, list[float]] = {}
        self.moved: dict[str, list[int]] = {}
        self.graph: list[float] = []
        self.engine: list[float] = []
        self.painted: list[int] = []

    def add(
        self, backend: CudaBackend, frames: Sequence[Frame], selection: list[SelectionParams], rounds: int, ruler: Ruler
    ) -> None:
        """Measure one batch. The slot keeps the frames, so that its work can be queued again and again."""
        job = backend.start(frames, selection)
        results = _results(job)
        slot, steps = job.slot, job.slot.steps(job.work)
        names, pieces = [name for name, _ in steps], [step for _, step in steps]
        engine = [step for name, step in steps if name == "engine"]
        self.painted += [int((result.ids > 0).sum()) for result in results]
        for name, count in _moved(backend, job, frames, results, steps).items():
            self.moved.setdefault(name, []).append(count)
        # How long it takes to queue them is known from then on.
        ruler.seconds(slot.stream, pieces)
        for _ in range(rounds):
            seconds = dict.fromkeys(names, 0.0)
            for name, value in zip(names, ruler.seconds(slot.stream, pieces), strict=True):
                seconds[name] += value
            for name, value in seconds.items():
                self.stages.setdefault(name, []).append(value)
            self.graph += ruler.seconds(slot.stream, [lambda: slot.queue(job.work)])
            self.engine += ruler.seconds(slot.stream, engine)

    def result(self, bandwidth: Bandwidth) -> list[Stage]:
        """The stages, with floors by this bandwidth."""
        rates = {"upload": bandwidth.to_device, "download": bandwidth.to_host}
        stages = []
        for name, seconds in self.stages.items():
            moved = round(float(np.mean(self.moved[name])))
            floor = moved / rates.get(name, bandwidth.on_device)
            if name == "engine":
                floor = float(np.median(self.engine))
            stages.append(Stage(name, np.array(seconds), moved, floor))
        return stages


def _moved(
    backend: CudaBackend, job: CudaJob, frames: Sequence[Frame], results: Sequence[Selected], steps: Sequence[Step]
) -> dict[str, int]:
    """The least bytes that each stage must move."""
    spec, mask_type = backend.spec, backend.engine.mask_type
    network, rows = spec.network_height * spec.network_width * 3, spec.max_instances
    moved = {name: 0 for name, _ in steps}
    if not backend.device.integrated:
        for name, step in steps:
            if name in ("upload", "download"):
                copied = step()
                moved[name] += copied if isinstance(copied, int) else 0
        job.slot.stream.wait()
    moved["letterbox"] = sum(
        letterbox_bytes(frame, geometry, network) for frame, geometry in zip(frames, job.geometries, strict=True)
    )
    # Boxes, scores, labels and classes are read, ids and areas written.
    cells = spec.mask_height * spec.mask_width if spec.class_map else 0
    moved["select"] = len(frames) * (rows * (16 + 4 + 4 + 2 + 4) + cells)
    moved["paint"] = sum(
        paint_bytes(spec, mask_type, each.detections.boxes_network[each.ids > 0], each.painted.pixels.nbytes)
        for each in results
    )
    return moved


def _cells(low: float, high: float, count: int) -> int:
    """Cells of a grid of `count` that lie at least partly between two places on it."""
    return max(0, min(ceil(high), count) - max(int(low), 0))
