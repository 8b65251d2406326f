"""The GPU's whole backend through the real pycuda: captured work, kernels and an engine on the emulated driver."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from colour_model import NAMES, random_scene, save_canonical_colour_model
from cuda_driver import EmulatedDriver
from host_device import OrtEngine, OrtExecution
from numpy.typing import NDArray

from seg_perception.core.classes import ClassTable
from seg_perception.core.errors import DeviceError
from seg_perception.core.frame import Frame
from seg_perception.core.instances import Segmentation
from seg_perception.onboard.backend.registry import open_backend
from seg_perception.onboard.backend.tensorrt.cuda.backend import CudaBackend
from seg_perception.onboard.backend.tensorrt.cuda.pycuda_device import PycudaDevice
from seg_perception.onboard.pipeline.segmenter import Segmenter

GROUPS = ("pedestrian", "vehicle", "traffic_sign", "traffic_light")
TABLE = ClassTable("colours", NAMES, dict(zip(NAMES, GROUPS, strict=True)))
LARGEST_BATCH = 2


class _Memory:
    """Device memory by its address, which is the host's."""

    def view(self, address: int, size: int) -> NDArray[np.uint8]:
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))


class _Engine(OrtEngine):
    """The model under ONNX Runtime, queued on the handle of a stream as TensorRT queues an engine."""

    def __init__(self, path: Path, driver: EmulatedDriver) -> None:
        super().__init__(path, _Memory(), LARGEST_BATCH)
        self.driver = driver

    def bind(self, batch: int, addresses: Mapping[str, int], scratch: int) -> _Execution:
        return _Execution(self, batch, dict(addresses))


class _Execution(OrtExecution):
    _engine: _Engine

    def enqueue(self, stream: int) -> None:
        self._engine.driver.queue(stream, lambda: self._engine.infer(self._batch, self._addresses))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_canonical_colour_model(tmp_path_factory.mktemp("model") / "dynamic.onnx", batch=None)


@contextmanager
def opened(model: Path, driver: EmulatedDriver) -> Iterator[CudaBackend]:
    engine = _Engine(model, driver)
    backend = CudaBackend(engine.spec, {}, PycudaDevice(), engine)
    try:
        yield backend
    finally:
        backend.close()


def image(seed: int, width: int = 320, height: int = 192) -> Frame:
    scene = random_scene(np.random.default_rng(seed), width, height, 6, grid=8).image
    return Frame.from_bgr(np.ascontiguousarray(scene[..., ::-1]))


def check(backend: CudaBackend, model: Path, width: int = 320, height: int = 192) -> None:
    """Batches of one and of two give what the host's backend gives."""
    host, ours = Segmenter(open_backend(model, "onnxruntime"), TABLE), Segmenter(backend, TABLE)
    for seed in range(6):
        images = [image(seed, width, height), image(100 + seed, width, height)][: 1 + seed % 2]
        for found, expected in zip(ours.segment(images), host.segment(images), strict=True):
            assert_same(found, expected)


def assert_same(found: Segmentation, expected: Segmentation) -> None:
    np.testing.assert_array_equal(found.instances.labels, expected.instances.labels)
    np.testing.assert_array_equal(found.instances.ids, expected.instances.ids)
    assert len(found.instances) > 0
    assert (found.instance_map.pixels != expected.instance_map.pixels).mean() < 0.002


@pytest.mark.parametrize("integrated", [0, 1])
def test_results_are_the_hosts(driver: EmulatedDriver, model: Path, integrated: int) -> None:
    driver.set(integrated=integrated)
    with opened(model, driver) as backend:
        check(backend, model)
        assert backend.captures.made > 0
        made, before = backend.captures.made, driver.counts()
        check(backend, model)
        assert backend.captures.made == made
        assert driver.counts() == before
        check(backend, model, 500, 400)
        check(backend, model)


def test_without_graphs(driver: EmulatedDriver, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(model, driver) as backend:
        monkeypatch.setitem(sys.modules, "cuda.bindings", None)
        check(backend, model)
        assert "cuda-bindings cannot be imported" in backend.identity["launches"]


def test_a_fault_ends_the_backend_and_the_next_one_works(driver: EmulatedDriver, model: Path) -> None:
    with opened(model, driver) as backend:
        segmenter = Segmenter(backend, TABLE)
        for seed in range(4):
            segmenter.segment([image(seed)])
        driver.set(fault=700)
        with pytest.raises(DeviceError, match="everything that was open on this GPU is lost"):
            segmenter.segment([image(1)])
    with opened(model, driver) as backend:
        check(backend, model)


def test_no_room_for_a_larger_frame(driver: EmulatedDriver, model: Path) -> None:
    with opened(model, driver) as backend:
        check(backend, model)
        driver.set(memory=8 << 20)
        with pytest.raises(DeviceError, match="out of memory on Emulated GPU"):
            Segmenter(backend, TABLE).segment([image(1, 4000, 3000)])


def test_no_room_at_all(driver: EmulatedDriver, model: Path) -> None:
    driver.set(memory=1 << 16)
    with pytest.raises(DeviceError, match="out of memory on Emulated GPU"), opened(model, driver):
        pass
