"""One batch in flight: its memory, its stream, and the work that is queued there.

`ALL` brings frames to the device and takes numbered maps from it; `DETECT` and `PAINT` are its two halves, for callers
that decide between them which instances get which numbers; `CLASSES` fetches a class map. The first time, work is
queued piece by piece; after that it is captured into a graph, which a single launch queues.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from seg_perception.core.contract import ModelSpec

from .buffers import Block, Capacity, Layout, found_layout, inner_layout, maps_layout, request_layout
from .device import CaptureFailed, Device, Graph
from .engine import Engine, Execution
from .letterbox import launch_letterbox
from .paint import MapKernels

ALL, DETECT, PAINT, CLASSES = "all", "detect", "paint", "classes"
# Batches between two looks at whether less room would do.
_PATIENCE = 500


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
    """Statistics of captured graphs, shared by all slots.

    Attributes:
        made: graphs captured so far: two for each size of batch, and for each size with semantic maps; again when a
            frame or map is larger than all before, or all have become much smaller.
        obstacle: why nothing is captured; empty while it is.
        told: the obstacle that the log has; a later try that meets the same one says nothing.
    """

    made: int = 0
    obstacle: str = ""
    told: str = ""


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
        self.closed = False
        self.class_names = spec.class_names
        self.has_class_map = spec.class_map
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
        self._batches = 0
        self._lately = self.capacity
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
        """The block that goes to the device; see `request_layout`."""
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
        self._lately = self._lately.grown(frame_bytes, map_pixels)
        if not self.capacity.holds(frame_bytes, map_pixels):
            self._resize(self.capacity.grown(frame_bytes, map_pixels))

    def give_up_room(self) -> None:
        """Now and then, before frames are written: release what was not needed for a while.

        All that there is room for is copied, since copies of a captured graph have a fixed size.
        """
        self._batches += 1
        if self._batches % _PATIENCE:
            return
        if 2 * self._lately.map_pixels <= self.capacity.map_pixels or (
            2 * self._lately.frame_bytes <= self.capacity.frame_bytes
        ):
            self._resize(self._lately)
        self._lately = Capacity(self.capacity.batch)

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
            return [*self._detect(work, select=True), *self._paint(work, chosen=True)]
        if work.kind == DETECT:
            download = ("download", lambda: self.found.download(self.stream, "boxes", "faults"))
            return [*self._detect(work, select=False), download]
        if work.kind == PAINT:
            return self._paint(work, chosen=False)
        return self._classes(work)

    def close(self) -> None:
        """Wait for what is queued and give everything back; after a fault of the device as far as possible."""
        self.closed = True
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

    def _resize(self, capacity: Capacity) -> None:
        """Make the blocks that depend on it again; what the host had written there is gone."""
        self.stream.wait()
        self._graphs.clear()
        # What stood in the way may be gone, too.
        self._captures.obstacle = ""
        if capacity.frame_bytes != self.capacity.frame_bytes:
            self._remake("request", request_layout(self._spec, capacity))
            self.capacity = replace(self.capacity, frame_bytes=capacity.frame_bytes)
        if capacity.map_pixels != self.capacity.map_pixels:
            self._remake("maps", maps_layout(capacity))
            self.capacity = capacity

    def _remake(self, name: str, layout: Layout) -> None:
        old, self._blocks[name] = self._blocks[name], Block(self._device, layout)
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

    def _paint(self, work: Work, chosen: bool) -> list[Step]:
        """Numbers to maps, without small instances. `chosen`: the numbers are those of `select`, 1..N."""
        request, found, maps, inner, stream = self.request, self.found, self.maps, self._blocks["inner"], self.stream
        kernels, pixels = self._kernels, self.capacity.map_pixels
        rows = found.size_of("numbers") // self.capacity.batch
        begin, size = work.first * rows, work.count * rows
        steps: list[Step] = []
        if not chosen:
            numbers = (found.address("numbers") + begin, request.address("numbers") + begin, size)
            steps = [
                ("upload", lambda: request.upload(stream, "cameras", "numbers")),
                ("paint", lambda: self._device.copy(*numbers, stream)),
                ("paint", lambda: found.zero(stream, "faults")),
                ("paint", lambda: found.zero(stream, "areas")),
            ]
        return [
            *steps,
            ("paint", lambda: kernels.paint(inner, found, request, maps, work, pixels, False, stream)),
            ("paint", lambda: kernels.prune(request, found, inner, work, chosen, stream)),
            ("paint", lambda: kernels.paint(inner, found, request, maps, work, pixels, True, stream)),
            ("download", lambda: found.download(stream, "boxes" if chosen else "faults", "areas")),
            *self._map_downloads(work, "maps", *(["semantic"] if work.semantic else [])),
        ]

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
        if reason == self._captures.told:
            return
        self._captures.told = reason
        logging.getLogger(__name__).warning("no CUDA graphs, every launch is queued by itself: %s", reason)
