"""A frame goes as soon as its results have gone out: reference counts free it, not the cyclic collector."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
from colour_model import paint_scene, save_canonical_colour_model

from seg_perception.core.class_tables import resolve_class_table
from seg_perception.core.frame import Frame
from seg_perception.core.instances import Detections
from seg_perception.onboard.backend.base import RunOptions
from seg_perception.onboard.backend.host.backend import HostBackend
from seg_perception.onboard.backend.host.job import Found
from seg_perception.onboard.backend.host.openvino import OpenVinoRunner
from seg_perception.onboard.backend.registry import backend_names, open_backend
from seg_perception.onboard.pipeline.options import SegmenterOptions
from seg_perception.onboard.pipeline.outputs import ALWAYS, ON_DEMAND, FrameMessages
from seg_perception.onboard.pipeline.overlay import OverlayStyle
from seg_perception.onboard.pipeline.overlay_panel import OverlayStats
from seg_perception.onboard.pipeline.segmenter import Segmenter
from seg_perception.onboard.pipeline.track import TrackerOptions


@pytest.fixture
def collector_off() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("tracking", [None, TrackerOptions()])
@pytest.mark.usefixtures("collector_off")
def test_nothing_of_a_frame_waits_for_the_cyclic_collector(tmp_path: Path, tracking: TrackerOptions | None) -> None:
    backend = open_backend(save_canonical_colour_model(tmp_path / "colours.onnx"), "", RunOptions())
    table = resolve_class_table("auto", backend.spec.class_names)
    segmenter = Segmenter(backend, table, SegmenterOptions(tracking=tracking))
    image = paint_scene(320, 192, [(16, 40, 56, 136, 0), (80, 64, 176, 128, 1)]).image
    style, alive = OverlayStyle("both", True, True), []
    for number in range(4):
        frame = Frame.from_bgr(image[..., ::-1].copy(), stamp_ns=number * 10**8)
        segmentation = segmenter.segment([frame], semantic=True)[0]
        figures = OverlayStats(frame.camera, 0.1, 10.0, {}, 5.0, frozenset())
        messages = FrameMessages(
            segmentation, backend.spec.class_names, style=style, figures=lambda figures=figures: figures
        )
        for topic in (*ALWAYS, *ON_DEMAND):
            messages.make(topic)
        alive += map(weakref.ref, (frame.data, segmentation.instance_map.pixels, messages))
        del frame, segmentation, messages
    segmenter.close()
    assert not any(reference() is not None for reference in alive)


@pytest.mark.parametrize("name", backend_names())
@pytest.mark.usefixtures("collector_off")
def test_masks_go_with_their_job(tmp_path: Path, name: str) -> None:
    """What the model found stays. The memory of masks is taken once for each job that there is at a time."""
    backend = open_backend(save_canonical_colour_model(tmp_path / "colours.onnx"), name, RunOptions(threads=1))
    assert isinstance(backend, HostBackend)
    image = paint_scene(320, 192, [(16, 40, 56, 136, 0), (80, 64, 176, 128, 1)]).image
    found, masks = [], []
    for _ in range(4):
        job = backend.start([Frame.from_bgr(image)])
        found += job.detections()
        (inner,) = job._found.result()
        assert isinstance(inner, Found)
        masks.append(weakref.ref(inner.outputs.masks))
        del inner, job
    assert not any(reference() is not None for reference in masks)
    (runner,) = backend._runners
    if isinstance(runner, OpenVinoRunner):
        assert len(runner._idle[1]) == 1
    assert len({tuple(each.scores.tolist()) for each in found if isinstance(each, Detections)}) == 1
    backend.close()


def test_a_backend_that_nobody_closes_ends_its_threads(tmp_path: Path) -> None:
    backend = open_backend(save_canonical_colour_model(tmp_path / "colours.onnx"), "onnxruntime", RunOptions(runners=2))
    assert isinstance(backend, HostBackend)
    threads = backend._threads
    assert backend.identity["runners"] == "2"
    del backend
    for thread in threads:
        thread.join(10.0)
        assert not thread.is_alive()
