"""Images of a frame under two models: both as overlays in the same colours, and where they differ."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from seg_perception.offboard.report.drawing import Pairing, draw_difference, draw_instances, resized_instances
from seg_perception.offboard.report.gallery import Layer, narrowed

from .compare import ComparedFrame


def layers(frame: ComparedFrame, class_names: Sequence[str]) -> list[Layer]:
    """Reference, tested model and difference, at the width of a report's images."""
    height, width = frame.image_bgr.shape[:2]
    image = narrowed(frame.image_bgr)
    ours, theirs = (resized_instances(found, width, height, image) for found in (frame.reference, frame.tested))
    agreement, relabelled = frame.agreement, frame.relabelled
    pairing = Pairing(agreement.pairs, agreement.missed, agreement.extra, agreement.switched)
    if relabelled is not None:
        size = (image.shape[1], image.shape[0])
        relabelled = cv2.resize(relabelled.view(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT) > 0
    return [
        Layer("reference", draw_instances(image, ours, class_names, pairing.first)),
        Layer("tested", draw_instances(image, theirs, class_names, pairing.second, pairing.numbers(len(ours)))),
        Layer("difference", draw_difference(image, ours, theirs, pairing, class_names, relabelled)),
    ]
