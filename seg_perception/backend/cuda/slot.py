"""One batch under way: its memory, its stream, and the work that is queued there.

`ALL` brings frames to the device and takes numbered maps from it; `DETECT` and `PAINT` are its two halves, for callers
that decide between them which instances get which numbers; `CLASSES` fetches a class map. The first time, work is
queued piece by piece; after that it is captured into a graph, which a single launch queues.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from ...contract import ModelSpec
from .buffers import Block, Capacity, Layout, found_layout, inner_layout, maps_layout, request_layout
from .device import CaptureFailed, Device, Graph
from .engine import Engine, Execution
from .letterbox import launch_letterbox
from .paint import MapKernels

ALL, DETECT, PAINT, CLASSES = "all", "detect", "paint", "classes"


@dataclass(frozen=True, slots=True)
class Work:
    """What is queued at once.

    Attributes:
        kind: `ALL`, `DETECT`, `PAINT` or `CLASSES`.
        first, count: which frames of the batch.
        semantic: whether semantic maps are made and brought back.
    """

    kind: str
    first: int
    count: int
    semantic: bool = False

    @property
    def runs_engine(self) -> bool:
        """Whether the engine is part of it."""
        return self.kind in (ALL, DETECT)


@dataclass
class Captures:
    """How work was queued; shared by all slots.

    Attributes:
        made: graphs captured so far; grows beyond the warm-up only when a frame is larger than any before.
        obstacle: why nothing is captured; empty while it is.
    """

    made: int = 0
    obstacle: str = ""


Step = tuple[str, Callable[[], object]]


class Slot:
    """Memory for one batch. Everything here is called with the device active."""

    def __init__(self, device: Device, engine: Engine, spec: ModelSpec, batch: int, captures: Captures) -> None:
        """Take what does not depend on the cameras.

        Raises:
            DeviceError: there is not enough memory.
        """
        self.capacity = Capacity(batch)
        self.stream = device.stream()
        self.serial = 0
        self._device = device
        self._engine = engine
        self._spec = spec
        self._captures = captures
        self._letterbox = device.kernel("letterbox")
        self._kernels = MapKernels(device, spec, engine.mask_type)
        self._executions: dict[int, Execution] = {}
        self._enqueued: set[int] = set()
        self._graphs: dict[Work, Graph] = {}
        self._blocks: dict[str, Block] = {}
        self._scratch = 0
        try:
            self._scratch = device.memory(max(engine.scratch_bytes, 1))
            self._blocks["inner"] = Block(device, inner_layout(spec, batch, engine.mask_type), device_only=True)
            self._blocks["found"] = Block(device, found_layout(spec, batch))
            self._blocks["request"] = Block(device, request_layout(spec, self.capacity))
            self._blocks["maps"] = Block(device, maps_layout(self.capacity))
        except BaseException:
            self.close()
            raise

    @property
    def request(self) -> Block:
        """What goes to the device; see `request_layout`."""
        return self._blocks["request"]

    @property
    def found(self) -> Block:
        """The small results; see `found_layout`."""
        return self._blocks["found"]

    @property
    def maps(self) -> Block:
        """The large results; see `maps_layout`."""
        return self._blocks["maps"]

    def make_room(self, frame_bytes: int, map_pixels: int) -> None:
        """See that frames and maps of these sizes fit; what was captured for smaller ones is captured again.

        Raises:
            DeviceError: there is not enough memory.
        """
        if self.capacity.holds(frame_bytes, map_pixels):
            return
        self.stream.wait()
        self._graphs.clear()
        grown = self.capacity.grown(frame_bytes, map_pixels)
        if grown.frame_bytes > self.capacity.frame_bytes:
            self._remake("request", request_layout(self._spec, grown))
            self.capacity = replace(self.capacity, frame_bytes=grown.frame_bytes)
        if grown.map_pixels > self.capacity.map_pixels:
            self._remake("maps", maps_layout(grown))
            self.capacity = grown

    def queue(self, work: Work) -> None:
        """Queue work, as a graph if it can be one.

        Raises:
            DeviceError: the device refused.
        """
        graph = self._graphs.get(work)
        if graph is None and self._may_capture(work):
            graph = self._capture(work)
        if graph is not None:
            graph.launch(self.stream)
            return
        for _, step in self.steps(work):
            step()
        if work.runs_engine:
            self._enqueued.add(self._engine_batch(work))

    def steps(self, work: Work) -> list[Step]:
        """The pieces of work in their order, each with the name of its stage."""
        if work.kind == ALL:
            return [*self._detect(work, select=True), *self._paint(work, pruned=True)]
        if work.kind == DETECT:
            download = ("download", lambda: self.found.download(self.stream, "boxes", "faults"))
            return [*self._detect(work, select=False), download]
        if work.kind == PAINT:
            return self._paint(work, pruned=False)
        return self._classes(work)

    def close(self) -> None:
        """Wait for what is queued and give everything back; after a fault of the device as far as possible."""
        if not self._device.lost:
            self.stream.wait()
        self._graphs.clear()
        for execution in self._executions.values():
            execution.close()
        self._executions.clear()
        for block in self._blocks.values():
            block.free()
        self._blocks.clear()
        scratch, self._scratch = self._scratch, 0
        if scratch:
            self._device.free(scratch)

    def _remake(self, name: str, layout: Layout) -> None:
        """Put a larger block in the place of one; arrays of the same size keep what the host has in them."""
        old, new = self._blocks[name], Block(self._device, layout)
        for array in old.host.keys() & new.host.keys():
            if new.host[array].shape == old.host[array].shape:
                new.host[array][...] = old.host[array]
        self._blocks[name] = new
        old.free()

    def _detect(self, work: Work, select: bool) -> list[Step]:
        """Frames to what the engine found, and, on demand, the numbers of the instances that are kept."""
        execution = self._execution(self._engine_batch(work))
        request, found, inner, stream = self.request, self.found, self._blocks["inner"], self.stream
        size = (self._spec.network_height, self._spec.network_width)
        end = work.count * self.capacity.frame_bytes
        steps: list[Step] = [
            ("upload", lambda: request.upload(stream, "cameras", "frames", end)),
            ("letterbox", lambda: launch_letterbox(
                self._letterbox, request.address("frames"), request.address("cameras"), inner.address("images"),
                work.count, size, stream,
            )),
            ("engine", lambda: execution.enqueue(stream.handle)),
        ]  # fmt: skip
        if select:
            steps.append(("select", lambda: self._kernels.select(found, request, work.count, stream)))
        else:
            steps.append(("select", lambda: found.zero(stream, "faults")))
        if self._spec.class_map:
            steps.append(("select", lambda: self._kernels.check_classes(inner, found, work.count, stream)))
        return steps

    def _paint(self, work: Work, pruned: bool) -> list[Step]:
        """Numbers to maps. `pruned`: the numbers are those of `select`, and small instances are left out."""
        request, found, maps, inner, stream = self.request, self.found, self.maps, self._blocks["inner"], self.stream
        kernels, pixels = self._kernels, self.capacity.map_pixels

        def paint(gated: bool) -> None:
            numbers = found if pruned else request
            kernels.paint(inner, found, request, numbers, maps, work, pixels, gated, stream)

        if pruned:
            steps: list[Step] = [
                ("paint", lambda: paint(gated=False)),
                ("paint", lambda: kernels.prune(request, found, inner, work.count, stream)),
                ("paint", lambda: paint(gated=True)),
                ("download", lambda: found.download(stream, "boxes", "areas")),
            ]
        else:
            steps = [
                ("upload", lambda: request.upload(stream, "cameras", "numbers")),
                ("paint", lambda: found.zero(stream, "faults")),
                ("paint", lambda: found.zero(stream, "areas")),
                ("paint", lambda: paint(gated=False)),
                ("download", lambda: found.download(stream, "faults", "areas")),
            ]
        return [*steps, *self._map_downloads(work, "maps", *(["semantic"] if work.semantic else []))]

    def _classes(self, work: Work) -> list[Step]:
        """The class map of one frame at the size of its map."""
        request, stream = self.request, self.stream
        return [
            ("upload", lambda: request.upload(stream, "cameras")),
            ("paint", lambda: self._kernels.class_cells(
                self._blocks["inner"], request, self.maps, work.first, self.capacity.map_pixels, stream
            )),
            *self._map_downloads(work, "semantic"),
        ]  # fmt: skip

    def _map_downloads(self, work: Work, *names: str) -> list[Step]:
        def download(name: str) -> Step:
            return "download", lambda: self.maps.download_rows(self.stream, name, work.first, work.count)

        return [download(name) for name in names]

    def _engine_batch(self, work: Work) -> int:
        """Frames that the engine takes: a model of a fixed batch takes all of it, whatever is in the rest."""
        return self._engine.batch or work.count

    def _execution(self, batch: int) -> Execution:
        if batch not in self._executions:
            outputs = {name: self.found.address(name) for name in ("boxes", "scores", "labels")}
            outputs["images"] = self._blocks["inner"].address("images")
            outputs["masks"] = self._blocks["inner"].address("masks")
            if self._spec.class_map:
                outputs["class_map"] = self._blocks["inner"].address("class_map")
            self._executions[batch] = self._engine.bind(batch, outputs, self._scratch)
        return self._executions[batch]

    def _may_capture(self, work: Work) -> bool:
        """TensorRT wants to have run once, uncaptured, with the shapes that are captured."""
        if self._captures.obstacle:
            return False
        batch = self._engine_batch(work)
        if not work.runs_engine:
            return True
        if batch not in self._enqueued:
            return False
        if not self._executions[batch].capturable(self.stream.handle):
            self._give_up("TensorRT says that this engine cannot be captured")
            return False
        return True

    def _capture(self, work: Work) -> Graph | None:
        def queue() -> None:
            for _, step in self.steps(work):
                step()

        try:
            graph = self._graphs[work] = self._device.capture(self.stream, queue)
        except CaptureFailed as error:
            self._give_up(str(error))
            return None
        self._captures.made += 1
        return graph

    def _give_up(self, reason: str) -> None:
        self._captures.obstacle = reason
        logging.getLogger(__name__).warning("no CUDA graphs, every launch is queued by itself: %s", reason)
