"""What `bench.gpu` measures: the kernels on inputs of camera size, each held against the CPU first."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.paint import blobs
from seg_perception.core.contract import ModelSpec
from seg_perception.core.encodings.raw import view
from seg_perception.core.frame import ENCODINGS, Frame
from seg_perception.core.geometry import ResizeGeometry, ResizeSpec
from seg_perception.onboard.backend.host.letterbox import letterbox
from seg_perception.onboard.backend.host.paint import paint
from seg_perception.onboard.backend.tensorrt.cuda.device import CaptureFailed, Device
from seg_perception.onboard.backend.tensorrt.cuda.letterbox import describe, launch_letterbox
from seg_perception.onboard.backend.tensorrt.cuda.paint import MapKernels
from seg_perception.onboard.backend.tensorrt.cuda.profile import Ruler, letterbox_bytes, paint_bytes
from seg_perception.onboard.backend.tensorrt.cuda.records import CAMERA
from seg_perception.onboard.backend.tensorrt.cuda.slot import ALL, Work

NETWORK, GRID, ROWS, CLASSES = 640, 160, 100, 80
HD, UHD = (1920, 1080), (3840, 2160)
# Operations, as counted in the kernels' sources: for each pixel of the content, by encoding; for each pixel of a map,
# and for each pixel within each box.
LETTERBOX_OPERATIONS = {"bgr8": 60, "nv12": 160, "bayer_rggb8": 200}
MAP_OPERATIONS, BOX_OPERATIONS = 4, 16
# Lanes of a multiprocessor, of compute capability 8.6 and later: of integers and of float32.
INTEGER_LANES, FLOAT_LANES = 64, 128


@dataclass(frozen=True)
class Case:
    """A kernel on some input.

    Attributes:
        name: for people.
        launches: each on buffers of its own.
        moved: the least bytes of a launch.
        operations: of a launch, counted; 0 where nobody did.
        lanes: of a multiprocessor, that do them.
        goal: seconds; 0 for none.
    """

    name: str
    launches: Sequence[Callable[[], object]]
    moved: int
    operations: int = 0
    lanes: int = FLOAT_LANES
    goal: float = 0.0


@dataclass
class Places:
    """Named addresses, as `MapKernels` wants them."""

    places: dict[str, int] = field(default_factory=dict)

    def address(self, name: str) -> int:
        """Where an array begins."""
        return self.places[name]

    def replaced(self, **places: int) -> Places:
        """The same with others in their place."""
        return Places({**self.places, **places})


class Bench:
    """A device with a stream, and how things get there and back."""

    def __init__(self, device: Device, cache_bytes: int, rounds: int) -> None:
        self.device, self.stream = device, device.stream()
        self.cache_bytes, self.rounds = cache_bytes, rounds

    def put(self, array: NDArray[Any]) -> int:
        """A copy of an array on the device."""
        block, target = self.device.pinned(array.nbytes), self.device.memory(array.nbytes)
        block.array[...] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self.device.copy_in(target, block.array, self.stream)
        self.stream.wait()
        self.device.free(block)
        return target

    def get(self, source: int, shape: tuple[int, ...], dtype: type) -> NDArray[Any]:
        """What lies on the device."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        block = self.device.pinned(size)
        self.device.copy_out(block.array, source, self.stream)
        self.stream.wait()
        array: NDArray[Any] = block.array.view(dtype).reshape(shape).copy()
        self.device.free(block)
        return array

    def copies(self, moved: int) -> int:
        """How many buffers exceed the cache well."""
        return min(96, max(2, ceil(4 * self.cache_bytes / moved)))

    def seconds(self, ruler: Ruler, launches: Sequence[Callable[[], object]]) -> float:
        """Median time of a launch."""

        def queue() -> None:
            for launch in launches:
                launch()

        queue()
        self.stream.wait()
        try:
            graph = self.device.capture(self.stream, queue)
        except CaptureFailed as reason:
            print(f"no graph ({reason}): launches one by one", file=sys.stderr)
            found = [sum(ruler.seconds(self.stream, launches)) for _ in range(self.rounds)]
        else:
            found = [ruler.seconds(self.stream, [lambda: graph.launch(self.stream)])[0] for _ in range(self.rounds)]
        return float(np.median(found[1:])) / len(launches)


def noise(encoding: str, width: int, height: int) -> Frame:
    """A camera image of random bytes."""
    layout = ENCODINGS[encoding]
    step = width * layout.bytes_per_pixel
    data = np.random.default_rng(0).integers(0, 256, height * layout.rows_per_two // 2 * step, np.uint8)
    return Frame(data, width, height, step, encoding)


def letterbox_case(bench: Bench, encoding: str, goal: float) -> Case:
    """1080p to 640 x 640."""
    frame = noise(encoding, *HD)
    geometry = ResizeGeometry.fit(ResizeSpec(), *HD, NETWORK, NETWORK)
    record = np.zeros(1, CAMERA)
    describe(record[0], frame, geometry, 114, 0)
    size = NETWORK * NETWORK * 3
    moved = letterbox_bytes(frame, geometry, size)
    kernel, cameras = bench.device.kernel("letterbox"), bench.put(record)

    def launch(source: int, images: int) -> Callable[[], object]:
        return lambda: launch_letterbox(kernel, source, cameras, images, 1, (NETWORK, NETWORK), bench.stream)

    buffers = [(bench.put(frame.data), bench.device.memory(size)) for _ in range(bench.copies(moved))]
    launches = [launch(*each) for each in buffers]
    launches[-1]()
    found, expected = (
        bench.get(buffers[-1][1], (NETWORK, NETWORK, 3), np.uint8),
        np.empty((NETWORK, NETWORK, 3), np.uint8),
    )
    letterbox(*view(frame), geometry, 114, expected)
    worst = np.abs(found.astype(int) - expected).max(axis=2)
    if (worst > 2).mean() > 0.001 or (encoding == "bgr8" and worst.max() > 1):
        raise SystemExit(f"letterbox of {encoding} differs from the CPU's by up to {worst.max()}")
    content = geometry.content_width * geometry.content_height
    operations = content * LETTERBOX_OPERATIONS[encoding]
    return Case(f"letterbox 1080p {encoding} to 640 x 640", launches, moved, operations, INTEGER_LANES, goal)


def model_spec() -> ModelSpec:
    """A model like YOLOv8-seg."""
    return ModelSpec(
        "bench", tuple(f"class {index}" for index in range(CLASSES)), (True,) * CLASSES, ResizeSpec(), NETWORK, NETWORK,
        batch=0, max_instances=ROWS, mask_height=GRID, mask_width=GRID, mask_frame="frame",
    )  # fmt: skip


def outputs_of(count: int, width: int, height: int, dtype: type) -> tuple[dict[str, NDArray[Any]], ResizeGeometry]:
    """What a model would have found: `count` instances anywhere in the image, and rows that are not used."""
    masks, boxes, geometry = blobs(count, width, height)
    outputs = {
        "boxes": np.zeros((1, ROWS, 4), np.float32),
        "scores": np.zeros((1, ROWS), np.float32),
        "labels": np.arange(ROWS, dtype=np.int32)[None] % CLASSES,
        "masks": np.full((1, ROWS, GRID, GRID), -8, dtype),
    }
    outputs["boxes"][0, :count], outputs["masks"][0, :count] = boxes, masks.astype(dtype)
    outputs["scores"][0, :count] = np.linspace(0.9, 0.5, count)
    return outputs, geometry


def paint_cases(bench: Bench, count: int, size: tuple[int, int], dtype: type, goal: float) -> list[Case]:
    """The kernels from the engine's outputs to the map, for so many instances of a fiftieth of the image each."""
    width, height = size
    outputs, geometry = outputs_of(count, width, height, dtype)
    spec, stream, pixels = model_spec(), bench.stream, width * height
    record = np.zeros(1, CAMERA)
    describe(record[0], Frame(np.zeros(pixels, np.uint8), width, height, width, "mono8"), geometry, 114, 0)
    record["map_width"], record["map_height"], record["group_iou"], record["min_pixels"] = width, height, 1.0, 16
    made = {name: bench.put(np.zeros((1, ROWS), kind)) for name, kind in (("numbers", np.uint16), ("areas", np.int32))}
    found = Places({name: bench.put(outputs[name]) for name in ("boxes", "scores", "labels")} | made)
    found.places["faults"] = bench.put(np.zeros(1, np.uint32))
    request = Places({"cameras": bench.put(record), "thresholds": bench.put(np.full(CLASSES, 0.25, np.float32))})
    request.places["groups"] = bench.put((np.arange(CLASSES) % 4).astype(np.int32))
    kernels, work = MapKernels(bench.device, spec, np.dtype(dtype)), Work(ALL, 0, 1)
    moved = paint_bytes(spec, np.dtype(dtype), outputs["boxes"][0, :count], 2 * pixels)
    gate = bench.put(np.zeros(1, np.uint32))
    buffers = [
        (
            Places({"masks": bench.put(outputs["masks"]), "gate": gate}),
            Places({"maps": bench.device.memory(2 * pixels)}),
        )
        for _ in range(bench.copies(moved))
    ]

    def painting(inner: Places, maps: Places, gated: bool) -> Callable[[], object]:
        return lambda: kernels.paint(inner, found, request, maps, work, pixels, gated, stream)

    def select() -> None:
        kernels.select(found, request, 1, stream)

    inner, maps = buffers[-1]

    def prune_and_paint() -> None:
        kernels.prune(request, found, inner, work, True, stream)
        painting(inner, maps, True)()

    select()
    painting(inner, maps, False)()
    check_painted(bench, outputs, geometry, found, maps, (height, width))
    boxes = outputs["boxes"][0, :count]
    boxed = float(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).sum()) / geometry.scale_x / geometry.scale_y
    where = f"{count} instances at {'1080p' if size == HD else '4K'}, {np.dtype(dtype).name} masks"
    rows = ROWS * (16 + 4 + 4 + 2 + 4)
    operations = int(boxed * BOX_OPERATIONS + pixels * MAP_OPERATIONS)
    return [
        Case(f"paint {where}", [painting(*each, False) for each in buffers], moved, operations, FLOAT_LANES, goal),
        Case(f"select {where}", [select] * 20, rows),
        Case(f"prune and closed second paint {where}", [prune_and_paint] * 20, rows),
    ]


def check_painted(
    bench: Bench, outputs: Mapping[str, NDArray[Any]], geometry: ResizeGeometry, found: Places, maps: Places,
    size: tuple[int, int],
) -> None:  # fmt: skip
    """End the program if the map is not the CPU's."""
    numbers = bench.get(found.address("numbers"), (ROWS,), np.uint16)
    pixels = bench.get(maps.address("maps"), size, np.uint16)
    expected = paint(outputs["masks"][0], outputs["boxes"][0], numbers, geometry, size)
    if not numbers.any() or (pixels != expected.pixels).any():
        raise SystemExit(f"paint: {int((pixels != expected.pixels).sum())} pixels differ from the CPU's")
