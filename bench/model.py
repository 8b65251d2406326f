"""The model alone, and everything of ours around it, measured in turn in one process."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.data import THREADS, arguments, street_images
from bench.table import interleaved, show
from seg_perception.core.class_tables import resolve_class_table
from seg_perception.core.frame import Frame
from seg_perception.core.instances import Segmentation
from seg_perception.core.messages.images import write_image
from seg_perception.core.messages.serialized import frame_from_image
from seg_perception.onboard.backend.base import RunOptions
from seg_perception.onboard.backend.host.backend import HostBackend
from seg_perception.onboard.backend.host.onnxruntime import OrtRunner
from seg_perception.onboard.backend.host.openvino import OpenVinoRunner
from seg_perception.onboard.backend.host.runner import Runner
from seg_perception.onboard.pipeline.outputs import ALWAYS, FrameMessages
from seg_perception.onboard.pipeline.segmenter import Segmenter

ROUNDS = 41
MOST_INSTANCES = 10


def typical(segmenter: Segmenter, images: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """The image with most instances, but no more than ten."""
    found = [len(segmenter.segment([Frame.from_bgr(image)])[0].instances) for image in images]
    return images[max(range(len(found)), key=lambda index: found[index] if found[index] <= MOST_INSTANCES else -1)]


def message_path(image: NDArray[np.uint8], names: tuple[str, ...]) -> Callable[[Segmentation], None]:
    """What the node does per frame besides segmenting: read the serialised image, serialise the results."""
    received = write_image(0, "camera", "bgr8", image)

    def path(segmentation: Segmentation) -> None:
        frame_from_image(received, "camera")
        messages = FrameMessages(segmentation, names)
        for topic in ALWAYS:
            messages.make(topic)

    return path


def main(values: argparse.Namespace | None = None) -> None:
    """Print both tables."""
    values = values or arguments(__doc__)
    options = RunOptions(threads=THREADS)
    runners: dict[str, Runner] = {
        "openvino": OpenVinoRunner(values.model, options),
        "onnxruntime": OrtRunner(values.model, options),
    }
    spec = runners["openvino"].spec
    images = np.full((1, spec.network_height, spec.network_width, 3), 114, np.uint8)
    seconds = interleaved([partial(each.run, images) for each in runners.values()], ROUNDS // 2, pause=0.1)
    rows = [[name, f"{1e3 * s:.1f}", f"{s / seconds[0]:.2f}"] for name, s in zip(runners, seconds, strict=True)]
    title = f"Canonical model alone, {spec.network_width}x{spec.network_height}, f32, {THREADS} threads"
    show(title, ["backend", "ms", "ratio"], rows)
    runners["onnxruntime"].close()
    around(runners["openvino"], values.input)


def around(model: Runner, inputs: list[Path]) -> None:
    """Everything around the model at 720p, relative to the model alone under OpenVINO."""
    segmenter = Segmenter(HostBackend(model), resolve_class_table("auto", model.spec.class_names))
    image = typical(segmenter, street_images(inputs, 1280, 720))
    frame = Frame.from_bgr(image)
    images = np.empty((1, model.spec.network_height, model.spec.network_width, 3), np.uint8)
    results = segmenter.segment([frame])
    publish = message_path(image, model.spec.class_names)
    timings: list[dict[str, float]] = []

    def segment() -> None:
        results[:] = segmenter.segment([frame])
        timings.append(dict(results[0].timings))

    alone, whole, sent = interleaved([lambda: model.run(images), segment, lambda: publish(results[0])], ROUNDS)
    stages = {key: float(np.median([each[key] for each in timings])) for key in timings[0]}
    inside = whole - stages["model"]
    rows = [["model alone", f"{1e3 * alone:.2f}", "100.0 %"]]
    parts = {
        **{stage: value for stage, value in stages.items() if stage != "model"},
        "rest of segment()": max(0.0, inside - sum(v for k, v in stages.items() if k != "model")),
        "messages (read, build, serialise)": sent,
        "everything around the model": inside + sent,
    }
    rows += [[name, f"{1e3 * value:.2f}", f"{100 * value / alone:.1f} %"] for name, value in parts.items()]
    show(f"Around the model, 1280x720, {len(results[0].instances)} instances", ["part", "ms", "of the model"], rows)
    segmenter.close()


if __name__ == "__main__":
    main()
