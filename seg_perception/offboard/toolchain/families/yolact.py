"""YOLACT, as the exports of its published code have it, up to its detection layer.

    loc         `[B, N, 4]`        boxes relative to the priors, as in SSD (variances 0.1 and 0.2)
    conf        `[B, N, C + 1]`    after a softmax; the first is the background
    mask        `[B, N, P]`        mask coefficients, after their tanh
    priors      `[N, 4]`           centre x, centre y, width, height as shares of the network's width and height
    prototypes  `[B, h, w, P]`     after their relu

The result is the best of all pairs of a position and a class, as in the published code, so that one position may be
found as several classes. Suppression is greedy; the published code by default lets boxes that are suppressed
themselves suppress others ("fast NMS"), which removes more.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from seg_perception.core.geometry import ResizeSpec

from ..evidence import maker
from ..export import Export, Port
from ..graph import GraphBuilder, Value
from ..head import HeadOptions, InstanceHead, best_pairs, corners_of_centres, finite, take
from ..prototypes import Candidates, prototype_instances
from . import Match, PixelSpec, image_input, is_float, sizes_of

_CENTRE_VARIANCE, _SIZE_VARIANCE = 0.1, 0.2
_PIXELS = PixelSpec((123.68, 116.78, 103.94), (58.40, 57.12, 57.38))
# What activations an export ends with, through the nodes that put its levels together.
_NEUTRAL = {"Identity", "Cast", "Concat", "Reshape", "Transpose", "Flatten"}


class Yolact:
    """See the module."""

    name = "yolact"
    expects = (
        "five float outputs for the same positions N: boxes [B, N, 4], class probabilities [B, N, 1 + classes], mask "
        "coefficients [B, N, P], priors [N, 4], and prototypes [B, h, w, P] (YOLACT)"
    )

    def recognise(self, export: Export) -> Match | None:
        """By the five outputs, whatever their names and order."""
        image = image_input(export)
        outputs = _outputs(export)
        if image is None or outputs is None:
            return None
        positions, columns = sizes_of(outputs["conf"])
        height, width, count = sizes_of(outputs["prototypes"])
        return Match(
            image,
            outputs,
            columns - 1,
            _PIXELS,
            ResizeSpec("stretch"),
            f"{columns - 1} classes, {positions} positions, {count} prototypes of {width} x {height}",
            reading={
                "scores": "after a softmax whose first column is the background",
                "boxes": "offsets of SSD from the priors",
                "masks": "coefficients times prototypes over the whole image, logits",
            },
        )

    def write_head(self, graph: GraphBuilder, match: Match, options: HeadOptions) -> InstanceHead:
        """Candidates, suppression, then masks of the rows that remain."""
        values = {key: graph.value(port.name) for key, port in match.outputs.items()}
        positions, columns = sizes_of(match.outputs["conf"])
        height, width, count = sizes_of(match.outputs["prototypes"])
        limits = [*sizes_of(match.image)[:0:-1]] * 2
        usable = finite(values["prototypes"], 1, 2, 3)
        for key in ("loc", "conf", "mask"):
            usable = usable & finite(values[key], 1, 2)

        _, classes = values["conf"].transpose(0, 2, 1).split(1, 1, columns - 1)
        pairs = best_pairs(classes, columns - 1, positions, options.nms_candidates)
        priors = graph.node("Gather", values["priors"].reshape(-1, 4), pairs.positions, axis=0).transpose(0, 2, 1)
        boxes = _decoded(graph, take(values["loc"].transpose(0, 2, 1), pairs.positions, 4), priors)
        scale = graph.constant(np.reshape(limits, (1, 4, 1)))
        coefficients = take(values["mask"].transpose(0, 2, 1), pairs.positions, count)
        corners = corners_of_centres(boxes * scale)
        found = Candidates(pairs.scores, pairs.labels, pairs.places, corners, coefficients, pairs.count)
        prototypes = values["prototypes"].transpose(0, 3, 1, 2)
        head = prototype_instances(graph, found, prototypes, (count, height, width), options)
        within = head.boxes.maximum(0.0).minimum(graph.constant(limits))
        return replace(head, boxes=within, scores=usable.unsqueeze(1).where(head.scores, float("nan")))


def family() -> Yolact:
    """Return what `known_families` asks for."""
    return Yolact()


def _decoded(graph: GraphBuilder, offsets: Value, priors: Value) -> Value:
    """Centre x, centre y, width, height as shares, of SSD's offsets and priors; all float32 `[B, 4, K0]`."""
    shift, growth = offsets.split(1, 2, 2)
    centre, size = priors.split(1, 2, 2)
    centre = centre + shift * _CENTRE_VARIANCE * size
    return graph.concat(1, centre, size * graph.node("Exp", growth * _SIZE_VARIANCE))


def _outputs(export: Export) -> dict[str, Port] | None:
    """The outputs by the names in the module's description."""
    prototypes = [port for port in export.outputs if port.rank == 4]
    if len(export.outputs) != 5 or not all(map(is_float, export.outputs)) or len(prototypes) != 1:
        return None
    priors = [port for port in export.outputs if _is_priors(export, port)]
    dense = [port for port in export.outputs if port.rank == 3 and port not in priors]
    if len(priors) != 1 or len(dense) != 3 or min(map(min, map(sizes_of, (*dense, *prototypes)))) < 1:
        return None
    if len({sizes_of(port)[0] for port in dense} | {(priors[0].shape or ())[-2]}) != 1:
        return None
    parts = _told_apart(export, dense, sizes_of(prototypes[0])[2])
    return parts and {**parts, "priors": priors[0], "prototypes": prototypes[0]}


def _is_priors(export: Export, port: Port) -> bool:
    """Return whether an output is boxes that do not depend on the image."""
    if port.shape is None or port.rank not in (2, 3) or port.shape[-1] != 4:
        return False
    inputs = {name for node in export.ancestors(port.name) for name in node.input}
    return port.rank == 2 or not inputs.intersection(each.name for each in export.inputs)


def _told_apart(export: Export, dense: list[Port], count: int) -> dict[str, Port] | None:
    """Return which of three outputs `[B, N, any]` is what: by activations where they are to be seen, else by sizes."""
    makers = [(maker(export, port.name, _NEUTRAL), port) for port in dense]
    activations = {node.op_type: port for node, port in makers if node is not None}
    conf, mask = activations.get("Softmax"), activations.get("Tanh")
    rest = [port for port in dense if port not in (conf, mask)]
    if mask is None:
        mask = next((port for port in rest if sizes_of(port)[1] == count), None)
        rest = [port for port in rest if port is not mask]
    loc = next((port for port in rest if sizes_of(port)[1] == 4), None)
    rest = [port for port in rest if port is not loc]
    conf = conf or (rest[0] if rest else None)
    if loc is None or mask is None or conf is None or sizes_of(mask)[1] != count or sizes_of(conf)[1] < 2:
        return None
    return {"loc": loc, "conf": conf, "mask": mask}
