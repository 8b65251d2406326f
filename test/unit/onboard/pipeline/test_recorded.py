"""Results are byte for byte those that were recorded: a change of the pipeline's inside changes none of them.

`python test/unit/onboard/pipeline/test_recorded.py` records again; that is for a change that means to change results.
A runtime may round differently on another processor. A case whose model gives other outputs here is skipped.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[3]), str(Path(__file__).parents[4])]

from colour_model import NAMES, random_scene, save_canonical_colour_model
from host_device import host_backend
from panoptic_model import save_panoptic_model, save_semantic_model

from seg_perception.core.class_tables import resolve_class_table
from seg_perception.core.classes import ClassTable
from seg_perception.core.frame import Frame
from seg_perception.core.instances import Segmentation
from seg_perception.onboard.backend.base import RunOptions
from seg_perception.onboard.backend.host.letterbox import letterbox
from seg_perception.onboard.backend.host.onnxruntime import OrtRunner
from seg_perception.onboard.backend.host.openvino import OpenVinoRunner
from seg_perception.onboard.backend.host.select import IgnoreMask, SelectOptions
from seg_perception.onboard.backend.registry import open_backend
from seg_perception.onboard.pipeline.options import SegmenterOptions
from seg_perception.onboard.pipeline.output_size import OutputSize
from seg_perception.onboard.pipeline.segmenter import Segmenter
from seg_perception.onboard.pipeline.track import TrackerOptions

RECORDED = Path(__file__).with_suffix(".json")
STREET = Path(__file__).parents[4] / "engines" / "street-nano.onnx"
GROUPS = ("pedestrian", "vehicle", "traffic_sign", "traffic_light")
TABLE = ClassTable("colours", NAMES, dict(zip(NAMES, GROUPS, strict=True)))
BACKENDS = ("openvino", "onnxruntime", "cuda on the host")
RUNNERS: dict[str, Callable[..., Any]] = {"openvino": OpenVinoRunner, "onnxruntime": OrtRunner}
ONE = RunOptions(threads=1)
MODELS = ("street", "colours", "semantic", "panoptic")
OPTIONS = {
    "plain": SegmenterOptions(),
    "tracking": SegmenterOptions(min_pixels=60, tracking=TrackerOptions(coast=0.5)),
    "strict": SegmenterOptions(
        SelectOptions(0.3, (-1.0, 0.6, 0.2, -1.0), group_iou=0.4, keep_other=True), 150, OutputSize.parse("0.5")
    ),
}
CASES = [
    f"{model}, {backend}, {options}"
    for model in MODELS
    for backend in BACKENDS
    for options in OPTIONS
    # The GPU finds components on the host.
    if not (model == "semantic" and backend == "cuda on the host")
]


@cache
def model_path(kind: str, folder: Path) -> Path:
    if kind == "street":
        return STREET
    if kind == "colours":
        return save_canonical_colour_model(folder / "colours.onnx", batch=None)
    if kind == "semantic":
        return save_semantic_model(folder / "semantic.onnx")
    return save_panoptic_model(folder / "panoptic.onnx")


@cache
def batches(kind: str) -> list[list[Frame]]:
    """Frames of two cameras of different sizes, together and alone."""
    if kind == "street":
        from seg_perception.offboard.streetworld.world import StreetWorld, WorldOptions

        world = StreetWorld(WorldOptions(8, seed=31, width=640, height=360))
        return [[frame] for _, frame in world]
    single = kind in ("semantic", "panoptic")
    found = []
    for index in range(4):
        images = [
            random_scene(np.random.default_rng(10 * index + camera), *size, 7, grid=8).image
            for camera, size in enumerate(((320, 192), (417, 299)))
        ]
        frames = [
            Frame.from_bgr(np.ascontiguousarray(image[..., ::-1]), stamp_ns=index * 10**8, camera=camera)
            for image, camera in zip(images, ("left", "right"), strict=True)
        ]
        found += [[frame] for frame in frames] if single else [frames]
    return found


def digest(arrays: Sequence[Any]) -> str:
    total = sha256()
    for array in arrays:
        if array is not None:
            total.update(f"{array.dtype} {array.shape}".encode())
            total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()[:24]


def opened(kind: str, backend: str, options: str, folder: Path) -> Segmenter:
    path = model_path(kind, folder)
    made = host_backend(path, largest_batch=2) if backend not in RUNNERS else open_backend(path, backend, ONE)
    table = resolve_class_table("auto", made.spec.class_names) if kind == "street" else TABLE
    ignored = np.zeros((24, 40), bool)
    ignored[14:, :25] = True
    masks = {"left": IgnoreMask(ignored), "": IgnoreMask(ignored)}
    return Segmenter(made, table, OPTIONS[options], masks)


def arrays_of(result: Segmentation) -> list[Any]:
    found = result.instances
    named = [found.rows, found.ids, found.boxes_camera, found.scores, found.labels, found.groups]
    return [*named, result.instance_map.pixels, result.areas, result.semantic_map]


def outputs_sum(kind: str, backend: str, folder: Path) -> str:
    """What the model alone gives for these frames on this machine."""
    from seg_perception.core.encodings.raw import view
    from seg_perception.core.geometry import ResizeGeometry

    runner = RUNNERS.get(backend, OrtRunner)(model_path(kind, folder), ONE)
    spec = runner.spec
    arrays: list[Any] = []
    for frames in batches(kind):
        images = np.empty((len(frames), spec.network_height, spec.network_width, 3), np.uint8)
        for frame, image in zip(frames, images, strict=True):
            geometry = ResizeGeometry.fit(
                spec.resize, frame.width, frame.height, spec.network_width, spec.network_height
            )
            letterbox(*view(frame), geometry, spec.resize.pad_value, image)
        outputs = runner.run(images)
        arrays += [np.array(getattr(outputs, name)) for name in spec.output_names]
    runner.close()
    return digest(arrays)


def recorded(case: str, folder: Path) -> dict[str, Any]:
    kind, backend, options = case.split(", ")
    segmenter = opened(kind, backend, options, folder)
    results = [result for frames in batches(kind) for result in segmenter.segment(frames, semantic=True)]
    segmenter.close()
    return {
        "outputs": outputs_sum(kind, backend, folder),
        "instances": sum(len(result.instances) for result in results),
        "results": digest([array for result in results for array in arrays_of(result)]),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield tmp_path_factory.mktemp("models")
    model_path.cache_clear()


@pytest.mark.parametrize("case", CASES)
def test_results_are_those_recorded(case: str, folder: Path) -> None:
    before, now = json.loads(RECORDED.read_text(encoding="utf-8"))[case], recorded(case, folder)
    if before["outputs"] != now["outputs"]:
        pytest.skip("the model itself gives other outputs on this processor, or in this version of the runtime")
    assert now == before
    assert now["instances"] > 5


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        sums = {case: recorded(case, Path(made)) for case in CASES}
    RECORDED.write_text(json.dumps(sums, indent=1) + "\n", encoding="utf-8")
