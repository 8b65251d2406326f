"""A model with a class map only as its runner takes it to the GPU and back, over the GPU's interfaces on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from colour_model import random_scene
from host_device import HostDevice, OrtEngine
from layouts import unet
from numpy.typing import NDArray
from panoptic_model import save_panoptic_model

from seg_perception.core.errors import DeviceError
from seg_perception.offboard.toolchain.prepare import prepare
from seg_perception.onboard.backend.base import RunOptions
from seg_perception.onboard.backend.host.onnxruntime import OrtRunner
from seg_perception.onboard.backend.tensorrt.runner import TensorRtRunner

HEIGHT, WIDTH = 64, 96


@pytest.fixture(scope="module", params=[None, 2], ids=["open batch", "fixed batch"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    onnx.save(unet.unet(WIDTH, HEIGHT, request.param), folder / "raw.onnx")
    prepare(folder / "raw.onnx", folder / "unet.onnx")
    return folder / "unet.onnx"


def images(count: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(count)
    return np.stack([random_scene(rng, WIDTH, HEIGHT, 3, sides=(16, 40)).image for _ in range(count)])


def opened(model: Path, device: HostDevice) -> tuple[TensorRtRunner, OrtEngine]:
    engine = OrtEngine(model, device, largest_batch=3)
    return TensorRtRunner(engine.spec, {"backend": "host"}, device, engine), engine


@pytest.mark.parametrize("integrated", [False, True], ids=["discrete", "integrated"])
def test_any_number_of_images_gives_what_the_model_gives(model: Path, integrated: bool) -> None:
    device = HostDevice(integrated=integrated)
    runner, engine = opened(model, device)
    reference = OrtRunner(model, RunOptions(threads=1))
    warm = 0
    for count in (3, 1, 5, 2, 3):
        outputs = runner.run(images(count))
        expected = reference.run(images(count))
        assert outputs.class_map is not None
        np.testing.assert_array_equal(outputs.class_map, expected.class_map)
        assert len(np.unique(outputs.class_map)) > 1
        assert outputs.boxes.shape == (count, 0, 4)
        warm = warm or device.allocations
    assert device.allocations == warm
    assert sorted(engine.bound) == ([2] if engine.batch else [1, 2, 3])
    runner.close()
    runner.close()
    assert engine.closed
    assert device.closed
    with pytest.raises(RuntimeError, match="the model was closed"):
        runner.run(images(1))


def test_fault_of_the_gpu(model: Path) -> None:
    device = HostDevice()
    runner, engine = opened(model, device)
    device.fault = "an illegal memory access was encountered"
    with pytest.raises(DeviceError, match="illegal memory access"):
        runner.run(images(1))
    runner.close()
    assert engine.closed
    assert device.closed


def test_too_little_memory_leaves_nothing_open(model: Path) -> None:
    device = HostDevice(memory_limit=1000)
    engine = OrtEngine(model, device)
    with pytest.raises(DeviceError, match="out of memory"):
        TensorRtRunner(engine.spec, {}, device, engine)
    assert engine.closed
    assert device.closed


def test_models_with_instances_have_a_better_way(tmp_path: Path) -> None:
    device = HostDevice()
    engine = OrtEngine(save_panoptic_model(tmp_path / "panoptic.onnx", width=96, height=64), device)
    with pytest.raises(ValueError, match="expected a model with a class map only"):
        TensorRtRunner(engine.spec, {}, device, engine)
