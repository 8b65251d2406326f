"""The frames of an evaluation's report: truth, what each model found, and its errors, side by side on a slider."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from seg_perception.core.classes import NO_GROUP, NO_GROUP_NAME, ROAD_GROUPS
from seg_perception.offboard.report.drawing import (
    ONLY_FIRST,
    ONLY_SECOND,
    Pairing,
    colour_key,
    draw_difference,
    draw_instances,
    resized_instances,
)
from seg_perception.offboard.report.gallery import Layer, Shot, gallery, narrowed, share_of_bytes
from seg_perception.offboard.report.page import Section, bullets, paragraph

from .results import GALLERY_KINDS, EvaluatedModel, Evaluation, GalleryFrame

# Labels are road groups; index -1, no group, is the last.
_NAMES = (*ROAD_GROUPS, NO_GROUP_NAME)
_GROUPS = (*range(len(ROAD_GROUPS)), NO_GROUP)
_TITLES = {
    "best": "Frames that {first} does best",
    "worst": "Frames that {first} does worst",
    "changed": "Frames in which most has changed",
}


def frames(found: Evaluation) -> Iterator[Section]:
    """A section for each kind of frames there are."""
    layers = 2 + 2 * len(found.models)
    most_bytes = share_of_bytes(layers * len(found.gallery))
    for kind in GALLERY_KINDS:
        chosen = [each for each in found.gallery if each.kind == kind]
        if chosen:
            shots = (_shot(each, found.models) for each in chosen)
            yield Section(_TITLES[kind].format(first=found.models[0].name), [
                paragraph("Each model's number is its panoptic quality in the frame. What was found has the colour of ",
                          "its true counterpart. In the images of errors:"),
                colour_key([(ONLY_FIRST, "missed, or part of a mask that is missing"),
                            (ONLY_SECOND, "false alarm, or part of a mask that is too much")]),
                gallery(shots, most_bytes),
            ])  # fmt: skip


def _shot(frame: GalleryFrame, models: tuple[EvaluatedModel, ...]) -> Shot:
    """Truth against the first model, or the first against the one that differs most from it."""
    image = narrowed(_decoded(frame))
    truth = resized_instances(frame.truth, frame.width, frame.height, image)
    layers = [Layer("image", image), Layer("truth", draw_instances(image, truth, _NAMES, groups=_GROUPS))]
    errors = []
    for model, instances, verdict in zip(models, frame.instances, frame.verdicts, strict=True):
        found = resized_instances(instances, frame.width, frame.height, image)
        pairing = Pairing(verdict.found, verdict.missed, verdict.extra)
        drawn = draw_instances(image, found, _NAMES, pairing.second, pairing.numbers(len(truth)), _GROUPS)
        layers.append(Layer(model.name, drawn))
        errors.append(Layer(f"errors of {model.name}", draw_difference(image, truth, found, pairing, _NAMES)))
    said = [f"{model.name}: {each.score:.3f}; {each.words}" for model, each in zip(models, frame.verdicts, strict=True)]
    left, right = 1, 2
    if frame.kind == "changed" and len(models) > 1:
        scores = [each.score for each in frame.verdicts]
        left, right = 2, 2 + max(range(1, len(models)), key=lambda place: abs(scores[place] - scores[0]))
    # Best and worst are so for the first model's reasons, which are said already.
    why = [paragraph(frame.words)] if all(frame.words != each.words for each in frame.verdicts) else []
    return Shot(frame.name, [*why, bullets(said)], [*layers, *errors], left, right)


def _decoded(frame: GalleryFrame) -> NDArray[np.uint8]:
    image = cv2.imdecode(np.frombuffer(frame.jpeg, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(
            f"frame {frame.name}: expected a JPEG file in the gallery, got {len(frame.jpeg)} bytes of else"
        )
    return image.view(np.uint8)
