"""A made-up evaluation with everything that a report shows, under names that try to be markup."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from seg_perception.core.classes import ROAD_GROUPS
from seg_perception.offboard.evaluation.results import (
    COCO_STATS,
    BoundaryScore,
    CocoScores,
    Comparison,
    Curve,
    DataDescription,
    EvaluatedModel,
    Evaluation,
    FrameVerdict,
    GalleryFrame,
    Latency,
    ModelScores,
    PanopticResult,
    PanopticScore,
    Stratum,
    StratumScore,
    Throughput,
)
from seg_perception.offboard.evaluation.tracking import TrackingScores
from seg_perception.offboard.metrics.agreement import Agreement
from seg_perception.offboard.metrics.average_precision import Difference
from seg_perception.offboard.metrics.compact import FrameInstances

NAMES = ("<b>f32</b>", 'f16 "half" & more', "street-nano-int8-of-a-long-name.canonical.onnx")
FRAME_NAMES = {"best": "front/000001.png", "worst": "<script>alert(1)</script>", "changed": "na\udcefve.png"}
_NAN = float("nan")
_GROUPS = ("all", *ROAD_GROUPS)


def sample_evaluation(models: int = 3, frames: int = 200, width: int = 480, height: int = 270) -> Evaluation:
    """An evaluation of some models; only numbers of the groups `all` and `vehicle` are real, others are missing."""
    random = np.random.default_rng(1)
    names = NAMES[:models]
    return Evaluation(
        models=tuple(_model(name) for name in names),
        data=DataDescription(
            "/data/<set>.json", "COCO", frames, 2, {"pedestrian": 5, "vehicle": 12}, ("person", "car"), ("absent.png",),
            ("broken\udcff.png: no image",),
        ),
        score=0.25,
        by_categories=True,
        scores=tuple(_scores(place, frames, random) for place in range(models)),
        strata=tuple(_stratum(dimension, name, models, random) for dimension, name in (
            ("all", "all"), ("road group", "vehicle"), ("road group", "traffic_light"), ("size", "16 to 32 px"),
        )),
        curves=tuple(_curve(place, group, models) for group in _GROUPS[:3] for place in range(models)),
        comparisons=tuple(_comparison(place) for place in range(1, models)),
        gallery=tuple(_frame(kind, models, width, height, random) for kind in FRAME_NAMES),
        notes=("1 image was skipped: <i>absent.png</i>",),
        seconds={"reading": 1.5, "inference": 20.0},
        created="2024-05-06T07:08:09Z",
        package_version="1.2.3",
    )  # fmt: skip


def _model(name: str) -> EvaluatedModel:
    return EvaluatedModel(
        name, f"/models/{name}.onnx", {"backend": "openvino", "precision": "f32", "sha256": "0123456789abcdef" * 4},
        ("person", "car"), ("pedestrian", "vehicle"), True, {"family": "yolo", "nested": {"sizes": [640, 384]}},
        {"flavour": "tensorrt", "device": {"name": "<gpu>"}} if name == NAMES[0] else None,
    )  # fmt: skip


def _scores(place: int, frames: int, random: np.random.Generator) -> ModelScores:
    samples = (20 + 3 * place + random.gamma(2, 2, frames)).astype(np.float32)
    latency = Latency(float(samples.mean()), *np.percentile(samples, (50, 90, 99, 100)).tolist())
    panoptic = PanopticScore(0.4, 0.8, 0.5, 10, 4, 6)
    stats = {name: 0.3 + 0.01 * n - 0.02 * place for n, name in enumerate(COCO_STATS)}
    return ModelScores(
        coco=tuple(CocoScores(kind, stats, {"person": 0.25, "car": _NAN}) for kind in ("mask", "box")),
        throughput=Throughput(1000 / latency.mean, {"letterbox": latency, "total": latency}, samples),
        panoptic=PanopticResult({"car": panoptic}, {"all": panoptic, "things": panoptic}),
        boundary={"all": BoundaryScore(9, 0.8, 0.6), "vehicle": BoundaryScore(0, _NAN, _NAN)},
        tracking={"all": TrackingScores(100, 90, 4, 5, 0.6, 0.65, 0.55, 0.7, 1, 3)},
        results_file=f"results_{place}.json",
    )


def _stratum(dimension: str, name: str, models: int, random: np.random.Generator) -> Stratum:
    missing = name == "traffic_light"

    def score() -> StratumScore:
        return StratumScore(*([_NAN] * 7 if missing else random.random(7).tolist()))

    return Stratum(dimension, name, 0 if missing else 12, tuple(score() for _ in range(models)))


def _curve(model: int, group: str, models: int) -> Curve:
    recall = np.linspace(0.0, 1.0, 101, dtype=np.float64)
    end = 80 - 10 * model
    precision = np.where(np.arange(101) < end, 1 - 0.5 * recall, 0.0)
    scores = np.where(np.arange(101) < end, 1 - recall, np.nan)
    return Curve(model, "mask", group, 0.5, recall, precision, scores)


def _comparison(model: int) -> Comparison:
    agreement = Agreement(9, 20, 19, 17, 2, 1, 1, 0.93, (0.7, 0.8, 0.85, 0.95), 1.0, 2.0, 3.0, -0.01, 0.05)
    groups = {"all": Difference(-0.012, -0.02, 0.001, 1000), "vehicle": Difference(_NAN, _NAN, _NAN, 1000)}
    return Comparison(model, {"mask": groups, "box": groups}, agreement)


def _frame(kind: str, models: int, width: int, height: int, random: np.random.Generator) -> GalleryFrame:
    image = cv2.resize(random.integers(60, 200, (5, 8, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    boxes = np.array([[0.1, 0.2, 0.4, 0.8], [0.5, 0.3, 0.9, 0.7]]) * [width, height, width, height]
    truth = _instances(boxes, width, height)
    found = tuple(_instances(boxes + 4.0 * (place + 1), width, height) for place in range(models))
    verdict = FrameVerdict(np.array([[0, 0]]), np.array([1]), np.array([1]), 0.5, "missed vehicle; extra vehicle")
    _, jpeg = cv2.imencode(".jpg", image)
    return GalleryFrame(
        kind, FRAME_NAMES[kind], jpeg.tobytes(), width, height, truth, found, (verdict,) * models, f"{kind} of all"
    )


def _instances(boxes: NDArray[np.float64], width: int, height: int) -> FrameInstances:
    masks = np.zeros((len(boxes), height, width), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int).tolist(), strict=True):
        mask[y1:y2, x1:x2] = True
    return FrameInstances.of(boxes, np.array([0.9, 0.6]), np.array([1, -1]), masks)
