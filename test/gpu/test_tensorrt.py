"""The default model as an engine of TensorRT or TensorRT-RTX, built for the GPU here, against ONNX Runtime."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from gpu.on_gpu import ROOT

from seg_perception.core.errors import SegPerceptionError
from seg_perception.core.frame import Frame

MODEL = ROOT / "engines" / "street-nano.onnx"
MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}


@pytest.fixture(params=MODULES)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    target = str(request.param)
    for module in (MODULES[target], "onnx", "onnxruntime"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{target}: the Python package {module} is not installed")
    from seg_perception.core.manifest import BuildSettings
    from seg_perception.offboard.toolchain.engine.build import build_engine

    try:
        built = build_engine(MODEL, tmp_path, BuildSettings(precision="fp16", target=target, max_batch=2))
    except SegPerceptionError as error:
        pytest.skip(f"{target} does not build for this GPU: {error}")
    return built.path


def frames() -> list[Frame]:
    from seg_perception.offboard.streetworld.world import StreetWorld, WorldOptions

    world = StreetWorld(WorldOptions(4, 3, 1280, 720, scene_frames=1))
    return [frame for _, frame in world]


def test_engine_finds_what_the_model_finds(engine: Path) -> None:
    from seg_perception.core.boxes import box_iou
    from seg_perception.core.class_tables import resolve_class_table
    from seg_perception.onboard.backend.registry import open_backend
    from seg_perception.onboard.backend.tensorrt.cuda.backend import CudaBackend
    from seg_perception.onboard.pipeline.segmenter import Segmenter

    reference = open_backend(MODEL, "onnxruntime")
    table = resolve_class_table("auto", reference.spec.class_names)
    backend = open_backend(engine)
    assert isinstance(backend, CudaBackend)
    host, ours = Segmenter(reference, table), Segmenter(backend, table)
    ours.warm_up()
    missed = certain = 0
    for number, frame in enumerate(frames()):
        (expected,) = host.segment([frame])
        for found in ours.segment([frame] * (1 + number % 2)):
            strong = expected.instances.scores > 0.5
            ious = box_iou(expected.instances.boxes_camera[strong], found.instances.boxes_camera)
            same = expected.instances.labels[strong][:, None] == found.instances.labels
            certain += len(ious)
            missed += int((~((ious > 0.9) & same).any(axis=1)).sum()) if same.size else len(ious)
            inside = expected.instance_map.pixels > 0, found.instance_map.pixels > 0
            assert (inside[0] != inside[1]).mean() < 0.01
    print(f"{backend.identity}: {certain} certain instances, {missed} without a counterpart")
    assert certain > 10
    assert missed <= 0.03 * certain
    ours.close()
    host.close()
