"""The backend on a CUDA GPU: camera bytes go up once, small results and the maps come down.

Two batches may be in flight, each in a `Slot` of its own: while the GPU works on one, the next is copied to it, and the
CPU selects and tracks between the halves of the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from time import perf_counter
from typing import Any
from weakref import ref

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.contract import ModelSpec
from seg_perception.core.encodings.raw import view
from seg_perception.core.errors import DeviceError, ModelOutputError
from seg_perception.core.frame import ENCODINGS as LAYOUTS
from seg_perception.core.frame import Frame
from seg_perception.core.geometry import ResizeGeometry
from seg_perception.core.instances import Detections, InstanceMap

from ...base import Selected, SelectionParams, check_detections, not_finite, unknown_class
from .device import Device
from .engine import Engine
from .letterbox import describe
from .records import ENCODINGS, Fault
from .slot import ALL, CLASSES, DETECT, PAINT, Captures, Slot, Work

DEPTH = 2


class CudaJob:
    """A batch in a slot of its own; see `Job`. The slot takes another one when this is dropped.

    Attributes:
        slot: where.
        work: what was queued.
        geometries: where each camera image lies in the network input.
        selection: what is painted of each frame; empty where nothing is.
        timings: seconds of the CPU, to which those of waiting are added.
    """

    def __init__(
        self,
        device: Device,
        slot: Slot,
        work: Work,
        geometries: list[ResizeGeometry],
        selection: Sequence[SelectionParams],
        semantic: bool,
    ) -> None:
        """Take a slot; `CudaBackend` queues the work."""
        self.slot = slot
        self.work = work
        self.geometries = geometries
        self.selection = selection
        self.timings: dict[str, float] = {}
        self._device = device
        self._semantic = semantic
        self._detections: list[Detections | ModelOutputError] | None = None
        self._selected: list[Selected | ModelOutputError] | None = None

    def detections(self) -> list[Detections | ModelOutputError]:
        """Wait for the device; see `Job.detections`."""
        if self._detections is None:
            begin = perf_counter()
            with self._working():
                self.slot.stream.wait()
            self.timings["gpu"] = perf_counter() - begin
            self._detections = [self._checked(index) for index in range(self.work.count)]
        return self._detections

    def painted(self, ids: Sequence[NDArray[np.uint16]] | None = None) -> list[Selected | ModelOutputError]:
        """Fetch the maps that were made with the batch, or have them painted under given ids; see `Job.painted`."""
        found = self.detections()
        if not self.selection or (ids is None and self.work.kind != ALL):
            raise ValueError("job: expected one that was started with a selection, and ids where that is tracked")
        if ids is not None:
            begin = perf_counter()
            work = Work(PAINT, 0, self.work.count, self._semantic)
            least = [params.min_pixels for params in self.selection]
            self._paint(work, [params.map_size for params in self.selection], least, ids)
            self.timings["paint"] = perf_counter() - begin
        elif self._selected is not None:
            return self._selected
        selected = [self._fetched(index, each, ids is not None) for index, each in enumerate(found)]
        if ids is None:
            # Whatever is painted later lies in the same place.
            self._selected = selected
        return selected

    def mask(self, frame: int, row: int, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Have one mask painted; see `Job.mask`."""
        ids = np.zeros(len(self._frame(frame).scores), np.uint16)
        ids[row] = 1
        self._paint(Work(PAINT, frame, 1), [size], [0], [ids])
        if self.slot.found.host["faults"][frame] & Fault.FAULTY_LOGIT:
            raise not_finite("mask logits")
        return _cut(self.slot.maps.host["maps"][frame], size) > 0

    def class_map(self, frame: int, size: tuple[int, int]) -> NDArray[np.uint8] | None:
        """Fetch the class of each pixel; see `Job.class_map`."""
        self._frame(frame)
        if not self.slot.has_class_map:
            return None
        self._paint(Work(CLASSES, frame, 1), [size], [0], [])
        return _cut(self.slot.maps.host["semantic"][frame], size).copy()

    def _frame(self, index: int) -> Detections:
        """The detections of a frame, before anything else is painted."""
        found = self.detections()[index]
        if isinstance(found, ModelOutputError):
            raise found
        if self.work.kind == ALL:
            self.painted()
        return found

    @contextmanager
    def _working(self) -> Iterator[None]:
        if self.slot.closed:
            raise RuntimeError("the model was closed")
        with self._device.active():
            yield

    def _checked(self, index: int) -> Detections | ModelOutputError:
        """Return what was found in a frame, or what is wrong with it."""
        host, classes = self.slot.found.host, len(self.slot.class_names)
        faults = int(host["faults"][index])
        found = Detections(
            host["boxes"][index].copy(),
            host["scores"][index].copy(),
            host["labels"][index].copy(),
            self.geometries[index],
            self._share(),
        )
        try:
            check_detections(found.boxes_network, found.scores, found.labels, classes)
        except ModelOutputError as error:
            return error.with_traceback(None)
        if faults & Fault.FAULTY_CLASS:
            return not_finite("class scores")
        if faults & Fault.UNKNOWN_CLASS:
            return unknown_class("another", classes)
        return not_finite("mask logits") if faults & Fault.FAULTY_LOGIT else found

    def _fetched(self, index: int, found: Detections | ModelOutputError, given: bool) -> Selected | ModelOutputError:
        """Copy the result of one frame, since the next batch in this slot overwrites it."""
        host, size = self.slot.found.host, self.selection[index].map_size
        if isinstance(found, ModelOutputError):
            return found
        if given and int(host["faults"][index]) & Fault.FAULTY_LOGIT:
            return not_finite("mask logits")
        begin = perf_counter()
        semantic = _cut(self.slot.maps.host["semantic"][index], size).copy() if self._semantic else None
        pixels = _cut(self.slot.maps.host["maps"][index], size).copy()
        painted = InstanceMap(pixels, host["areas"][index].astype(np.int64))
        # Of this frame alone; the others are shared by the batch.
        self.timings["fetch"] = (perf_counter() - begin) * self.work.count
        return Selected(found, host["numbers"][index].copy(), painted, semantic, self._share())

    def _share(self) -> dict[str, float]:
        return {stage: seconds / self.work.count for stage, seconds in self.timings.items()}

    def _paint(
        self,
        work: Work,
        sizes: Sequence[tuple[int, int]],
        min_pixels: Sequence[int],
        ids: Sequence[NDArray[np.uint16]],
    ) -> None:
        """Queue the second half for some frames and wait for it; sizes and the rest are those of these frames."""
        slot = self.slot
        with self._working():
            slot.make_room(0, max(height * width for height, width in sizes))
            host = slot.request.host
            for offset, (size, least) in enumerate(zip(sizes, min_pixels, strict=True)):
                camera = host["cameras"][work.first + offset]
                camera["map_height"], camera["map_width"] = size
                camera["min_pixels"] = least
            for offset, own in enumerate(ids):
                host["numbers"][work.first + offset] = own
            slot.queue(work)
            slot.stream.wait()


class CudaBackend:
    """A `Backend` made of a `Device` and an `Engine`. One thread at a time may use it."""

    def __init__(self, spec: ModelSpec, identity: dict[str, str], device: Device, engine: Engine) -> None:
        """Take the memory of both slots.

        Args:
            spec: of a model with instances.
            identity: what runs here, human-readable.
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
        # The job in each slot, which may be gone; the slot that is to be taken next comes first.
        self._jobs: dict[Slot, ref[CudaJob] | None] = {}
        self._ignored: dict[int, tuple[NDArray[np.float64], int]] = {}
        self._closed = False
        try:
            with device.active():
                for _ in range(DEPTH):
                    self._jobs[Slot(device, engine, spec, self.largest_batch, self.captures)] = None
        except BaseException:
            self.close()
            raise

    @property
    def identity(self) -> dict[str, str]:
        """Human-readable facts; see `Backend.identity`; also whether launches are captured, and how often they were."""
        launches = f"one by one: {self.captures.obstacle}" if self.captures.obstacle else "CUDA graphs"
        return self._identity | {"launches": launches, "graphs captured": str(self.captures.made)}

    def wait(self) -> None:
        """Return at once: what a slot is given is copied while the device works on the other."""

    def start(
        self, frames: Sequence[Frame], selection: Sequence[SelectionParams] | None = None, semantic: bool = False
    ) -> CudaJob:
        """Begin with frames, one per camera; see `Backend.start`.

        Raises:
            RuntimeError: `depth` jobs exist.
        """
        if not 0 < len(frames) <= self.largest_batch:
            raise ValueError(f"frames: expected 1 to {self.largest_batch}, which the engine takes, got {len(frames)}")
        if self._closed:
            raise RuntimeError("the model was closed")
        begin = perf_counter()
        images = [_decoded(frame) for frame in frames]
        decoded = perf_counter()
        at_once = selection is not None and not any(params.tracked for params in selection)
        with self.device.active():
            slot = self._free_slot()
            slot.stream.wait()
            slot.give_up_room()
            job = CudaJob(
                self.device,
                slot,
                Work(ALL if at_once else DETECT, 0, len(frames), semantic and at_once),
                [self.spec.geometry(frame.width, frame.height) for frame in frames],
                selection or (),
                semantic,
            )
            sizes = [_bytes_of(image) for image in images]
            maps = [params.map_size for params in selection or ()] if at_once else []
            slot.make_room(max(sizes), max((height * width for height, width in maps), default=0))
            self._write_frames(job, images, sizes)
            if at_once:
                self._write_selection(slot, job.selection)
            copied = perf_counter()
            slot.queue(job.work)
        self._jobs[slot] = ref(job)
        job.timings.update(decode=decoded - begin, copy=copied - decoded, launch=perf_counter() - copied)
        return job

    def close(self) -> None:
        """Release the engine and all memory, also after a fault of the device."""
        if self._closed:
            return
        self._closed = True
        # After a fault nothing more can be asked of the device, not even to become active.
        with suppress(DeviceError), self.device.active():
            for slot in self._jobs:
                slot.close()
            for _, address in self._ignored.values():
                self.device.free(address)
            self.engine.close()
        self.engine.close()
        self._jobs.clear()
        self.device.close()

    def _free_slot(self) -> Slot:
        """The slot that has been idle for the longest."""
        for slot, job in self._jobs.items():
            if job is None or job() is None:
                # To the end of the line.
                self._jobs[slot] = self._jobs.pop(slot)
                return slot
        raise RuntimeError(f"jobs: expected at most {self.depth} of this backend, got one more; drop one before")

    def _write_frames(self, job: CudaJob, images: Sequence[Frame], sizes: Sequence[int]) -> None:
        """Put frames and what kernels read of them where the upload takes them from."""
        request = job.slot.request
        for index, (image, size, geometry) in enumerate(zip(images, sizes, job.geometries, strict=True)):
            offset = index * job.slot.capacity.frame_bytes
            camera = request.host["cameras"][index]
            describe(camera, image, geometry, self.spec.resize.pad_value, offset)
            np.copyto(request.host["frames"][index, :size], image.data[:size])

    def _write_selection(self, slot: Slot, selection: Sequence[SelectionParams]) -> None:
        """Put what select, paint and prune read where the upload takes it from."""
        host = slot.request.host
        for index, params in enumerate(selection):
            camera = host["cameras"][index]
            camera["map_height"], camera["map_width"] = params.map_size
            camera["min_pixels"], camera["group_iou"] = params.min_pixels, params.group_iou
            camera["ignore"] = camera["ignore_height"] = camera["ignore_width"] = 0
            if params.ignore is not None:
                camera["ignore"] = self._on_device(params.ignore, slot)
                camera["ignore_height"], camera["ignore_width"] = (side - 1 for side in params.ignore.shape)
            host["thresholds"][index] = params.thresholds
        host["groups"][...] = selection[0].groups

    def _on_device(self, sums: NDArray[np.float64], slot: Slot) -> int:
        """Address of an ignore mask's sums, which are brought there once."""
        device = self.device
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
