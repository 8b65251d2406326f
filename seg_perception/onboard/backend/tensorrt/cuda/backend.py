"""The backend on a CUDA GPU: camera bytes go up once, small results and the maps come down.

Two batches may be in flight, each in a `Slot` of its own: while the GPU works on one, the next is copied to it, and the
CPU selects and tracks between the halves of the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.contract import ModelSpec
from seg_perception.core.encodings.raw import view
from seg_perception.core.errors import DeviceError, ModelOutputError
from seg_perception.core.frame import ENCODINGS as LAYOUTS
from seg_perception.core.frame import Frame
from seg_perception.core.geometry import ResizeGeometry
from seg_perception.core.instances import Detections, InstanceMap

from ...base import Choice, Chosen, check_detections, not_finite, unknown_class
from .device import Device
from .engine import Engine
from .letterbox import describe
from .records import ENCODINGS, Fault
from .slot import ALL, CLASSES, DETECT, PAINT, Captures, Slot, Work

DEPTH = 2


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """A batch in flight.

    Attributes:
        slot: where.
        serial: of the slot when the batch began; a slot with another one has begun a newer batch.
        work: what was queued.
        geometries: where each camera image lies in the network input.
        sizes: height and width of each map; empty without choices.
        timings: seconds of the CPU, to which those of waiting are added.
    """

    slot: Slot
    serial: int
    work: Work
    geometries: list[ResizeGeometry]
    sizes: list[tuple[int, int]]
    timings: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _DeviceMasks:
    """Masks of one frame: which batch, and where in it."""

    job: Job
    index: int


class CudaBackend:
    """An `Accelerator` made of a `Device` and an `Engine`. One thread at a time may use it."""

    def __init__(self, spec: ModelSpec, identity: dict[str, str], device: Device, engine: Engine) -> None:
        """Take the memory of both slots.

        Args:
            spec: of a model with instances.
            identity: what runs here, for people.
            device: closed by `close`.
            engine: closed by `close`; both are closed here, too, if there is not enough memory.

        Raises:
            DeviceError: there is not enough memory.
        """
        self.spec = spec
        self.depth = DEPTH
        self.largest_batch = engine.batch or engine.largest_batch
        self.captures = Captures()
        self.device = device
        self.engine = engine
        self._identity = identity
        self._slots: list[Slot] = []
        self._next = 0
        self._ignored: dict[int, tuple[NDArray[np.float64], int]] = {}
        self._closed = False
        try:
            with device.active():
                for _ in range(DEPTH):
                    self._slots.append(Slot(device, engine, spec, self.largest_batch, self.captures))
        except BaseException:
            self.close()
            raise

    @property
    def identity(self) -> dict[str, str]:
        """What runs here, for people; also whether launches are captured, and how often they were."""
        launches = f"one by one: {self.captures.obstacle}" if self.captures.obstacle else "CUDA graphs"
        return self._identity | {"launches": launches, "graphs captured": str(self.captures.made)}

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        """Run the model on frames, one per camera; see `Backend.detect`. The last `depth` results stay valid."""
        found = []
        for each in self.detections(self.start(frames)):
            if isinstance(each, ModelOutputError):
                raise each
            found.append(each)
        return found

    def start(self, frames: Sequence[Frame], choices: Sequence[Choice] | None = None, semantic: bool = False) -> Job:
        """Begin with frames, one per camera; see `Accelerator.start`."""
        if not 0 < len(frames) <= self.largest_batch:
            raise ValueError(f"frames: expected 1 to {self.largest_batch}, which the engine takes, got {len(frames)}")
        begin = perf_counter()
        images = [_decoded(frame) for frame in frames]
        decoded = perf_counter()
        with self._working() as device:
            slot = self._slots[self._next]
            slot.stream.wait()
            slot.give_up_room()
            job = Job(
                slot,
                slot.serial + 1,
                Work(DETECT if choices is None else ALL, 0, len(frames), semantic and choices is not None),
                [self.geometry(frame) for frame in frames],
                [choice.map_size for choice in choices or ()],
            )
            sizes = [_bytes_of(image) for image in images]
            slot.make_room(max(sizes), max((height * width for height, width in job.sizes), default=0))
            self._write_frames(job, images, sizes)
            if choices is not None:
                self._write_choices(slot, choices, device)
            copied = perf_counter()
            slot.serial = job.serial
            slot.queue(job.work)
        self._next = (self._next + 1) % DEPTH
        job.timings.update(decode=decoded - begin, copy=copied - decoded, launch=perf_counter() - copied)
        return job

    def detections(self, job: object) -> list[Detections | ModelOutputError]:
        """Wait for what was found; see `Accelerator.detections`."""
        mine = self._finished(job)
        found = [self._detections(mine, index) for index in range(mine.work.count)]
        return [self._fault(mine, index, each) or each for index, each in enumerate(found)]

    def chosen(self, job: object) -> list[Chosen | ModelOutputError]:
        """Wait for the result of each frame; see `Accelerator.chosen`."""
        mine = self._finished(job)
        if mine.work.kind != ALL:
            raise ValueError("job: expected one that was started with choices")
        return [self._chosen(mine, index) for index in range(mine.work.count)]

    def painted(
        self, job: object, numbers: Sequence[NDArray[np.uint16]], choices: Sequence[Choice], semantic: bool = False
    ) -> list[Chosen | ModelOutputError]:
        """Paint what was found under given numbers; see `Accelerator.painted`."""
        mine = self._current(job)
        sizes = [choice.map_size for choice in choices]
        work = Work(PAINT, 0, mine.work.count, semantic)
        begin = perf_counter()
        self._paint(mine.slot, work, sizes, [choice.min_pixels for choice in choices], numbers)
        mine.timings["paint"] = perf_counter() - begin
        result = replace(mine, work=work, sizes=sizes)
        return [self._chosen(result, index) for index in range(work.count)]

    def paint(self, detections: Detections, numbers: NDArray[np.uint16], output_size: tuple[int, int]) -> InstanceMap:
        """Paint the masks of one of the last `depth` detects; see `Backend.paint`."""
        handle = self._handle(detections)
        slot = handle.job.slot
        self._paint(slot, Work(PAINT, handle.index, 1), [output_size], [0], [numbers])
        if slot.found.host["faults"][handle.index] & Fault.FAULTY_LOGIT:
            raise not_finite("mask logits")
        return self._map(slot, handle.index, output_size)

    def class_map(self, detections: Detections, output_size: tuple[int, int]) -> NDArray[np.uint8] | None:
        """The class of each pixel; see `Backend.class_map`."""
        if not self.spec.class_map:
            return None
        handle = self._handle(detections)
        self._paint(handle.job.slot, Work(CLASSES, handle.index, 1), [output_size], [0], [])
        return _cut(handle.job.slot.maps.host["semantic"][handle.index], output_size).copy()

    def geometry(self, frame: Frame) -> ResizeGeometry:
        """Return where a camera image lies in the network input."""
        spec = self.spec
        return ResizeGeometry.fit(spec.resize, frame.width, frame.height, spec.network_width, spec.network_height)

    def close(self) -> None:
        """Release the engine and all memory, also after a fault of the device."""
        if self._closed:
            return
        self._closed = True
        # After a fault nothing more can be asked of the device, not even to become active.
        with suppress(DeviceError), self.device.active():
            for slot in self._slots:
                slot.close()
            for _, address in self._ignored.values():
                self.device.free(address)
            self.engine.close()
        self.engine.close()
        self._slots.clear()
        self.device.close()

    @contextmanager
    def _working(self) -> Iterator[Device]:
        if self._closed:
            raise RuntimeError("the model was closed")
        with self.device.active():
            yield self.device

    def _write_frames(self, job: Job, images: Sequence[Frame], sizes: Sequence[int]) -> None:
        """Put frames and what kernels read of them where the upload takes them from."""
        request = job.slot.request
        for index, (image, size, geometry) in enumerate(zip(images, sizes, job.geometries, strict=True)):
            offset = index * job.slot.capacity.frame_bytes
            camera = request.host["cameras"][index]
            describe(camera, image, geometry, self.spec.resize.pad_value, offset)
            if job.sizes:
                camera["map_height"], camera["map_width"] = job.sizes[index]
            np.copyto(request.host["frames"][index, :size], image.data[:size])

    def _write_choices(self, slot: Slot, choices: Sequence[Choice], device: Device) -> None:
        """Put what select and prune read where the upload takes it from."""
        host = slot.request.host
        for index, choice in enumerate(choices):
            camera = host["cameras"][index]
            camera["min_pixels"], camera["group_iou"] = choice.min_pixels, choice.group_iou
            camera["ignore"] = camera["ignore_height"] = camera["ignore_width"] = 0
            if choice.ignore is not None:
                camera["ignore"] = self._on_device(choice.ignore, slot, device)
                camera["ignore_height"], camera["ignore_width"] = (side - 1 for side in choice.ignore.shape)
            host["thresholds"][index] = choice.thresholds
        host["groups"][...] = choices[0].groups

    def _on_device(self, sums: NDArray[np.float64], slot: Slot, device: Device) -> int:
        """Address of an ignore mask's sums, which are brought there once."""
        if id(sums) not in self._ignored:
            block = device.pinned(sums.nbytes)
            try:
                address = device.memory(sums.nbytes)
                block.array[: sums.nbytes].view(np.float64)[...] = sums.reshape(-1)
                device.copy_in(address, block.array[: sums.nbytes], slot.stream)
                slot.stream.wait()
            finally:
                device.free(block)
            self._ignored[id(sums)] = (sums, address)
        return self._ignored[id(sums)][1]

    def _lives(self, job: Job) -> bool:
        """Return whether a batch is of this backend and its slot has not begun another."""
        return job.slot in self._slots and job.slot.serial == job.serial

    def _current(self, job: object) -> Job:
        """A batch that has not been overtaken."""
        if not isinstance(job, Job) or not self._lives(job):
            raise ValueError(f"job: expected one of the last {DEPTH} of this backend, got an older or foreign one")
        return job

    def _finished(self, job: object) -> Job:
        """Wait for a batch."""
        mine = self._current(job)
        begin = perf_counter()
        with self._working():
            mine.slot.stream.wait()
        mine.timings["gpu"] = perf_counter() - begin
        return mine

    def _detections(self, job: Job, index: int) -> Detections:
        host = job.slot.found.host
        share = {stage: seconds / job.work.count for stage, seconds in job.timings.items()}
        return Detections(
            host["boxes"][index].copy(),
            host["scores"][index].copy(),
            host["labels"][index].copy(),
            job.geometries[index],
            _DeviceMasks(job, index),
            share,
        )

    def _fault(self, job: Job, index: int, found: Detections) -> ModelOutputError | None:
        """Return what is wrong with the outputs of one frame."""
        classes, faults = len(self.spec.class_names), int(job.slot.found.host["faults"][index])
        try:
            check_detections(found.boxes_network, found.scores, found.labels, classes)
        except ModelOutputError as error:
            return error
        if faults & Fault.FAULTY_CLASS:
            return not_finite("class scores")
        if faults & Fault.UNKNOWN_CLASS:
            return unknown_class("another", classes)
        return not_finite("mask logits") if faults & Fault.FAULTY_LOGIT else None

    def _chosen(self, job: Job, index: int) -> Chosen | ModelOutputError:
        slot, size = job.slot, job.sizes[index]
        begin = perf_counter()
        semantic = _cut(slot.maps.host["semantic"][index], size).copy() if job.work.semantic else None
        painted = self._map(slot, index, size)
        # Of this frame alone; the others are shared by the batch.
        job.timings["fetch"] = (perf_counter() - begin) * job.work.count
        detections = self._detections(job, index)
        fault = self._fault(job, index, detections)
        return fault or Chosen(detections, slot.found.host["numbers"][index].copy(), painted, semantic)

    def _map(self, slot: Slot, index: int, size: tuple[int, int]) -> InstanceMap:
        # Copied, since the next batch but one overwrites it while a caller may still hold this one.
        pixels = _cut(slot.maps.host["maps"][index], size).copy()
        return InstanceMap(pixels, slot.found.host["areas"][index].astype(np.int64))

    def _paint(
        self,
        slot: Slot,
        work: Work,
        sizes: Sequence[tuple[int, int]],
        min_pixels: Sequence[int],
        numbers: Sequence[NDArray[np.uint16]],
    ) -> None:
        """Queue the second half for some frames and wait for it; sizes and the rest are those of these frames."""
        with self._working():
            slot.make_room(0, max(height * width for height, width in sizes))
            host = slot.request.host
            for offset, (size, least) in enumerate(zip(sizes, min_pixels, strict=True)):
                camera = host["cameras"][work.first + offset]
                camera["map_height"], camera["map_width"] = size
                camera["min_pixels"] = least
            for offset, own in enumerate(numbers):
                host["numbers"][work.first + offset] = own
            slot.queue(work)
            slot.stream.wait()

    def _handle(self, detections: Detections) -> _DeviceMasks:
        handle = detections.masks
        if not isinstance(handle, _DeviceMasks) or not self._lives(handle.job):
            raise ValueError("masks: expected detections of this backend's last detect, got older or foreign ones")
        return handle


def _decoded(frame: Frame) -> Frame:
    """The frame in an encoding that the letterbox kernel knows; those of 16 bits are converted here."""
    if frame.encoding in ENCODINGS:
        return frame
    pixels, order = view(frame)
    height, width, channels = pixels.shape
    data = np.ascontiguousarray(pixels).reshape(-1)
    return Frame(data, width, height, width * channels, f"{order}8", frame.stamp_ns, frame.frame_id, frame.camera)


def _bytes_of(frame: Frame) -> int:
    """Bytes from the first pixel of a frame to its last; the padding of the last row may be absent."""
    return (frame.rows - 1) * frame.step + frame.width * LAYOUTS[frame.encoding].bytes_per_pixel


def _cut(flat: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    return flat[: size[0] * size[1]].reshape(size)
