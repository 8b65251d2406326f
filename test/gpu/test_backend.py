"""The backend on the GPU: the checks of test/unit/onboard/backend/cuda and, captured, against the host."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from colour_model import random_scene, save_canonical_colour_model
from gpu.on_gpu import checks_of, unit
from numpy.typing import NDArray

from bench.stand_in import CopyingEngine, copy_by_driver
from seg_perception.core.contract import ModelSpec
from seg_perception.core.encodings.raw import view
from seg_perception.core.frame import Frame
from seg_perception.core.geometry import ResizeGeometry
from seg_perception.onboard.backend.base import RunOptions
from seg_perception.onboard.backend.host.backend import HostBackend
from seg_perception.onboard.backend.host.letterbox import letterbox
from seg_perception.onboard.backend.host.onnxruntime import OrtRunner
from seg_perception.onboard.backend.tensorrt.cuda.backend import CudaBackend
from seg_perception.onboard.backend.tensorrt.cuda.profile import profile
from seg_perception.onboard.pipeline.segmenter import Segmenter
from seg_perception.onboard.pipeline.selection import Selection

if TYPE_CHECKING:
    from seg_perception.onboard.backend.tensorrt.cuda.pycuda_device import PycudaDevice

checks = unit("test_backend")
# These are about the stand-in for the device itself, or take hold of its inside.
LEFT_OUT = (
    "test_nothing_is_allocated_and_nothing_captured_after_the_warm_up",
    "test_a_larger_frame_is_captured_again_and_counted",
    "test_both_halves_are_captured",
    "test_without_capture_everything_is_queued_piece_by_piece",
    "test_an_engine_that_cannot_be_captured",
    "test_memory_shared_with_the_cpu_is_not_copied",
    "test_too_little_memory_is_an_error_that_leaves_nothing_behind",
    "test_too_little_memory_for_a_larger_frame",
    "test_a_fault_of_the_device_is_an_error_and_closing_works",
    "test_closing_gives_all_memory_back",
)
globals().update(checks_of([checks], LEFT_OUT))


class WaitingEngine:
    """An `Engine`: the model itself under ONNX Runtime on the CPU, so that nothing is captured."""

    def __init__(self, path: Path, device: PycudaDevice, largest_batch: int) -> None:
        self.runner = OrtRunner(path, RunOptions(threads=1))
        spec = self.runner.spec
        self.spec, self.device, self.stream = spec, device, device.stream()
        self.batch, self.scratch_bytes, self.memory_bytes = spec.batch, 0, 0
        self.largest_batch = spec.batch or largest_batch
        images = np.zeros((spec.batch or 1, spec.network_height, spec.network_width, 3), np.uint8)
        self.mask_type = self.runner.run(images).masks.dtype
        self.host = device.pinned(self.largest_batch * max(images[0].nbytes, spec.max_instances * 4 * 48 * 80))

    def bind(self, batch: int, addresses: Mapping[str, int], scratch: int) -> WaitingExecution:
        return WaitingExecution(self, batch, dict(addresses))

    def close(self) -> None:
        self.runner.close()


@dataclass
class WaitingExecution:
    engine: WaitingEngine
    batch: int
    addresses: dict[str, int]

    def enqueue(self, stream: int) -> None:
        engine = self.engine
        assert not ctypes.CDLL("libcuda.so.1")["cuStreamSynchronize"](ctypes.c_void_p(stream))
        shape = (self.batch, engine.spec.network_height, engine.spec.network_width, 3)
        images = engine.host.array[: int(np.prod(shape))]
        engine.device.copy_out(images, self.addresses["images"], engine.stream)
        engine.stream.wait()
        outputs = engine.runner.run(images.reshape(shape).copy())
        for name in engine.spec.output_names:
            data = np.ascontiguousarray(getattr(outputs, name)).reshape(-1).view(np.uint8)
            engine.host.array[: data.size] = data
            engine.device.copy_in(self.addresses[name], engine.host.array[: data.size], engine.stream)
            engine.stream.wait()

    def capturable(self, stream: int) -> bool:
        return False

    def close(self) -> None:
        """Nothing to release."""


def gpu_backend(path: Path, *, largest_batch: int = 1, device: Any = None) -> CudaBackend:
    """Takes the place of `host_backend`."""
    from seg_perception.onboard.backend.tensorrt.cuda.pycuda_device import PycudaDevice

    device = PycudaDevice()
    with device.active():
        engine = WaitingEngine(path, device, largest_batch)
    return CudaBackend(engine.spec, {"backend": "GPU"}, device, engine)


@pytest.fixture(scope="module", autouse=True)
def checks_on_the_gpu() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checks, "host_backend", gpu_backend)
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_canonical_colour_model(tmp_path_factory.mktemp("model") / "dynamic.onnx", batch=None)


@pytest.fixture
def backend(model: Path) -> Iterator[CudaBackend]:
    opened = gpu_backend(model, largest_batch=3)
    yield opened
    opened.close()


def outputs_for(runner: OrtRunner, frames: list[Frame]) -> dict[str, NDArray[Any]]:
    """What the model finds in these frames, by its output names."""
    spec = runner.spec
    images = np.empty((len(frames), spec.network_height, spec.network_width, 3), np.uint8)
    for frame, image in zip(frames, images, strict=True):
        pixels, order = view(frame)
        letterbox(pixels, order, geometry_of(spec, frame), spec.resize.pad_value, image)
    outputs = runner.run(images)
    return {name: getattr(outputs, name).copy() for name in spec.output_names}


def geometry_of(spec: ModelSpec, frame: Frame) -> ResizeGeometry:
    return ResizeGeometry.fit(spec.resize, frame.width, frame.height, spec.network_width, spec.network_height)


def street_frames() -> list[Frame]:
    images = [random_scene(np.random.default_rng(seed), 640, 384, 12, grid=8).image for seed in (1, 2)]
    return [Frame.from_bgr(np.ascontiguousarray(image[..., ::-1])) for image in images]


@pytest.fixture
def captured(device: PycudaDevice, model: Path) -> Iterator[CudaBackend]:
    """A backend that finds in every batch what the model finds in `street_frames`."""
    runner = OrtRunner(model, RunOptions(threads=1))
    engine = CopyingEngine(device, outputs_for(runner, street_frames()), copy_by_driver())
    opened = CudaBackend(runner.spec, {}, device, engine)
    yield opened
    opened.close()


def test_captured_as_on_the_host_without_an_allocation_after_the_warm_up(
    captured: CudaBackend, device: PycudaDevice, model: Path
) -> None:
    frames = street_frames()
    segmenter = Segmenter(captured, checks.TABLE)
    host = Segmenter(HostBackend(OrtRunner(model, RunOptions(threads=1))), checks.TABLE)
    expected = host.segment(frames, semantic=True)
    for _ in range(6):
        segmenter.segment(frames, semantic=True)
    taken, made = device.allocations, captured.captures.made
    ahead = segmenter.begin(frames, semantic=True)
    for _ in range(20):
        begun = segmenter.begin(frames, semantic=True)
        for found, wanted in zip(segmenter.end(ahead), expected, strict=True):
            checks.assert_same(found, wanted)
            np.testing.assert_array_equal(found.instance_map.pixels, wanted.instance_map.pixels)
            np.testing.assert_array_equal(found.semantic_map, wanted.semantic_map)
        ahead = begun
        del begun
    segmenter.end(ahead)
    assert captured.captures.obstacle == ""
    assert made == captured.captures.made > 0
    assert device.allocations == taken


def test_what_bench_measures(captured: CudaBackend) -> None:
    selection = Selection(captured.spec, checks.TABLE.groups(captured.spec.class_names), {})
    options = Segmenter(captured, checks.TABLE).options
    found = profile(captured, [street_frames()], lambda frame: selection.of(frame, options), rounds=10)
    assert [stage.name for stage in found.stages] == ["upload", "letterbox", "engine", "select", "paint", "download"]
    assert all((stage.seconds > 0).all() for stage in found.stages)
    assert found.obstacle == ""
    assert found.allocations == 0
    assert min(found.painted) > 3
