"""What `bench` measures of the GPU's backend, on the CPU: the times mean nothing here, what is counted does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from colour_model import paint_scene, save_canonical_colour_model
from host_device import HostDevice, host_backend

from seg_perception.cli.bench import measure_gpu
from seg_perception.core.errors import ConfigurationError
from seg_perception.core.frame import Frame
from seg_perception.core.geometry import ResizeGeometry, ResizeSpec
from seg_perception.onboard.backend.base import SelectionParams
from seg_perception.onboard.backend.tensorrt.cuda.profile import letterbox_bytes, profile

BLOCK = 1 << 16
THRESHOLDS, GROUPS = np.full(4, 0.25, np.float32), np.arange(4, dtype=np.int32)
STAGES = ["upload", "letterbox", "engine", "select", "paint", "download"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_canonical_colour_model(tmp_path_factory.mktemp("model") / "dynamic.onnx", batch=None)


def scene(count: int) -> Frame:
    """As many things as asked for, 64 x 64 pixels each, at half the scale of the network input."""
    image = paint_scene(640, 384, [(32 + 96 * n, 64, 96 + 96 * n, 128, n % 4) for n in range(count)]).image
    return Frame.from_bgr(np.ascontiguousarray(image[..., ::-1]))


def params(_: Frame) -> SelectionParams:
    return SelectionParams(THRESHOLDS, GROUPS, 0.7, 1, (384, 640))


def test_stages_and_the_bytes_that_they_must_move(model: Path) -> None:
    device = HostDevice()
    backend = host_backend(model, largest_batch=2, device=device)
    found = profile(backend, [[scene(1), scene(2)], [scene(3), scene(4)]], params, rounds=3, block_bytes=BLOCK)
    stages = {stage.name: stage for stage in found.stages}
    assert list(stages) == STAGES
    assert all((stage.seconds > 0).all() and len(stage.seconds) == 4 for stage in found.stages)
    assert found.painted == [1, 2, 3, 4]
    frame, network, maps = 640 * 384 * 3, 320 * 192 * 3, 640 * 384 * 2
    # The records before the frames are small; the cells of a thing are 8 x 8 of 4 bytes, and those that it touches.
    assert 2 * frame < stages["upload"].moved < 2 * frame + 10_000
    assert stages["letterbox"].moved == 2 * (frame + network)
    assert 2 * maps + 5 * 64 * 4 <= stages["paint"].moved <= 2 * maps + 5 * 100 * 4
    assert 2 * maps < stages["download"].moved < 2 * maps + 10_000
    assert stages["engine"].moved == 0
    assert stages["letterbox"].floor == pytest.approx(stages["letterbox"].moved / found.bandwidth.on_device)
    assert stages["upload"].floor == pytest.approx(stages["upload"].moved / found.bandwidth.to_device)
    assert found.obstacle == ""
    assert found.allocations == 0
    assert min(found.alone, found.together) > 0
    assert set(found.host) == {"decode", "copy", "launch", "gpu", "fetch"}
    backend.close()
    assert device.taken == 0


def test_without_copies_and_without_graphs(model: Path) -> None:
    device = HostDevice(integrated=True)
    device.capture_obstacle = "no bindings"
    backend = host_backend(model, device=device)
    found = profile(backend, [[scene(2)]], params, rounds=2, block_bytes=BLOCK)
    stages = {stage.name: stage for stage in found.stages}
    assert stages["upload"].moved == stages["download"].moved == 0
    assert stages["upload"].floor == stages["download"].floor == 0
    assert found.obstacle == "no bindings"
    backend.close()


def test_the_result_of_the_command(model: Path) -> None:
    backend = host_backend(model, device=HostDevice())
    result = measure_gpu(backend, GROUPS, [[scene(3)]], 2, block_bytes=BLOCK)
    assert list(result["stages"]) == STAGES
    assert result["total"]["p50"] >= result["host"]["gap"]["p50"]
    assert result["graph"]["floor_ms"] == pytest.approx(sum(each["floor_ms"] for each in result["stages"].values()))
    with pytest.raises(ConfigurationError, match="--max-batch"):
        measure_gpu(backend, GROUPS, [[scene(3)] * 2], 2)
    backend.close()


@pytest.mark.parametrize(
    ("encoding", "step", "expected"),
    [
        ("bgr8", 300, 40 * 300),  # two rows for each of the 20
        ("bayer_rggb8", 100, 60 * 100),  # four, and there are no more
        ("nv12", 100, (40 + 30) * 100),  # two of luma; all of chroma
    ],
)
def test_rows_that_a_letterbox_needs(encoding: str, step: int, expected: int) -> None:
    rows = 90 if encoding == "nv12" else 60
    frame = Frame(np.zeros(rows * step, np.uint8), 100, 60, step, encoding)
    geometry = ResizeGeometry.fit(ResizeSpec(), 100, 60, 33, 20)
    assert letterbox_bytes(frame, geometry, 7) == expected + 7
