"""RTMDet-Ins, as mmdeploy exports it, and as mmdet's own model gives its heads' outputs.

mmdeploy:
    dets    `[B, K, 5]`     x1, y1, x2, y2 in network pixels, score
    labels  `[B, K]`        int64
    masks   `[B, K, H, W]`  probabilities, interpolated to the size of the image

heads, for each of some levels of h x w positions:
    classes `[B, C, h, w]`  logits, each class by itself
    boxes   `[B, 4, h, w]`  distances to the left, top, right, bottom side in pixels
    kernels `[B, G, h, w]`  weights of the masks' dynamic convolution
and once, as fine as the finest level:
    features `[B, P, h, w]` what the dynamic convolution runs over

In mmdeploy's graphs (for ONNX Runtime and for TensorRT) the heads' outputs are found, too, and everything behind
them is cut off: suppression with data-dependent shapes or as a plug-in, and 100 interpolated masks of the size of the
image. Rows whose heads cannot be found are taken as they are, padded to K; their masks are cut before the sigmoid
and the interpolation where these are in sight, and otherwise the probabilities are turned back.

As in mmdet, one position may be found as several classes, and boxes without an area are none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.geometry import ResizeSpec

from ..dynamic_masks import MaskShape, dynamic_masks, layer_width
from ..export import Export, Port
from ..graph import GraphBuilder, Value
from ..head import HeadOptions, InstanceHead, best_pairs, finite, surviving_rows, take
from ..rows import detection_rows, has_regions, is_proportional, rows_head, spans_image, with_logits
from . import MASK_CELL, Match, PixelSpec, image_input, is_float, sizes_of

_PIXELS = PixelSpec((103.53, 116.28, 123.675), (57.375, 57.12, 58.395), bgr=True)
_RESIZE = ResizeSpec("letterbox", pad_value=114, anchor="top_left")
_PARTS = ("classes", "boxes", "kernels")
# Distances within a mask are counted in so many strides of the level that found the instance.
_UNIT = 8.0
_READING = {
    "scores": "a sigmoid for each class",
    "boxes": "x1, y1, x2, y2 in pixels of the network",
    "masks": "logits of a dynamic convolution over the whole image",
}


class RtmDet:
    """See the module."""

    name = "rtmdet"
    expects = (
        "three outputs of mmdeploy: float boxes with scores [B, K, 5], integer labels [B, K], float mask probabilities "
        "[B, K, H, W]; or the heads' own, for each level class logits [B, classes, h, w], distances [B, 4, h, w] and "
        "kernels [B, G, h, w], and once mask features [B, P, h, w] (RTMDet-Ins)"
    )

    def recognise(self, export: Export) -> Match | None:
        """By the heads' outputs, which are the model's own or inside it, else by mmdeploy's."""
        image = image_input(export)
        if image is None:
            return None
        rows = detection_rows(export)
        heads = _heads_among(export, image, export.outputs if rows is None else _inside(export))
        if heads is not None:
            classes = sizes_of(heads["classes0"])[0]
            levels = len(heads) // len(_PARTS)
            how = "the heads' outputs" if rows is None else "suppression and upsampling cut off"
            summary = f"{classes} classes, {levels} levels, {how}"
            return Match(image, heads, classes, _PIXELS, _RESIZE, summary, reading=_READING, evidence=("its heads",))
        return None if rows is None else _match_of_rows(export, image, rows)

    def write_head(self, graph: GraphBuilder, match: Match, options: HeadOptions) -> InstanceHead:
        """From the heads' outputs, or from rows."""
        return (_from_heads if "features" in match.outputs else rows_head)(graph, match, options)


def family() -> RtmDet:
    """Return what `known_families` asks for."""
    return RtmDet()


def _from_heads(graph: GraphBuilder, match: Match, options: HeadOptions) -> InstanceHead:
    levels = [sizes_of(match.outputs[f"classes{place}"])[1:] for place in range(len(match.outputs) // len(_PARTS))]
    positions = sum(height * width for height, width in levels)
    features = graph.value(match.outputs["features"].name)
    count, height, width = sizes_of(match.outputs["features"])
    dense = {}
    usable = finite(features, 1, 2, 3)
    for part in _PARTS:
        ports = [match.outputs[f"{part}{place}"] for place in range(len(levels))]
        flat = (graph.value(port.name).reshape(0, sizes_of(port)[0], -1) for port in ports)
        dense[part] = graph.concat(2, *flat)
        usable = usable & finite(dense[part], 1, 2)

    _, network_height, network_width = sizes_of(match.image)
    classes = sizes_of(match.outputs["classes0"])[0]
    pairs = best_pairs(graph.node("Sigmoid", dense["classes"]), classes, positions, options.nms_candidates)
    places = graph.constant(_places(levels, network_width))
    origins = graph.node("Gather", places, pairs.positions, axis=0)
    corners = _corners(take(dense["boxes"], pairs.positions, 4), origins, (network_height, network_width))
    left, top, right, bottom = (corner.reshape(0, pairs.count) for corner in corners)
    scores = pairs.scores * ((right > left) & (bottom > top)).cast(np.float32)

    chosen = surviving_rows(graph, scores, pairs.places, pairs.labels, corners, pairs.count, options)
    rows, used = min(options.max_instances, pairs.count), chosen.used.unsqueeze(1)
    where = pairs.positions.pick(chosen.indices, 1)
    parameters = sizes_of(match.outputs["kernels0"])[0]
    kernels = (take(dense["kernels"], where, parameters) * used).transpose(0, 2, 1)
    layer = _width(match.outputs["features"], match.outputs["kernels0"])
    shape = MaskShape(rows, count, layer, (height, width), network_width // width)
    return InstanceHead(
        boxes=(take(graph.concat(1, *corners), chosen.indices, 4) * used).transpose(0, 2, 1),
        scores=usable.unsqueeze(1).where(chosen.of(scores), float("nan")),
        labels=chosen.of(pairs.labels).cast(np.int32),
        masks=dynamic_masks(graph, kernels, graph.node("Gather", places, where, axis=0), features, shape),
        max_instances=rows,
        mask_height=height,
        mask_width=width,
        nms_candidates=pairs.count,
    )


def _places(levels: Sequence[tuple[int, ...]], network_width: int) -> NDArray[np.float32]:
    """x, y of each position in network pixels, and what a pixel of distance from it counts: float32 `[N, 3]`."""
    places = []
    for height, width in levels:
        stride = network_width // width
        y, x = np.mgrid[:height, :width].reshape(2, -1) * float(stride)
        places.append(np.stack([x, y, np.full(x.shape, 1 / (stride * _UNIT))], 1))
    table: NDArray[np.float32] = np.concatenate(places).astype(np.float32)
    return table


def _corners(distances: Value, origins: Value, network: tuple[int, int]) -> tuple[Value, Value, Value, Value]:
    """x1, y1, x2, y2 within the image, each `[B, 1, K0]`, of distances `[B, 4, K0]` and origins `[B, K0, 3]`."""
    left, top, right, bottom = distances.split(1, 1, 1, 1, 1)
    x, y, _ = origins.transpose(0, 2, 1).split(1, 1, 1, 1)
    sides = ((x - left, network[1]), (y - top, network[0]), (x + right, network[1]), (y + bottom, network[0]))
    x1, y1, x2, y2 = (side.maximum(0.0).minimum(float(limit)) for side, limit in sides)
    return x1, y1, x2, y2


def _match_of_rows(export: Export, image: Port, rows: dict[str, Port]) -> Match | None:
    """Rows as they are, their masks as far back as they can be followed."""
    outputs = with_logits(export, rows)
    key = "logits" if "logits" in outputs else "masks"
    count, height, width = sizes_of(outputs[key])
    if min(height, width) < MASK_CELL:
        return None
    evidence, against = [], []
    if spans_image(rows["masks"], image):
        evidence.append("masks of the size of the image")
    elif not is_proportional(rows["masks"], image):
        against.append(f"masks of {width} x {height}, which are no image of {_size(image)} scaled down")
    if has_regions(export, rows["dets"]):
        against.append("features cut out for regions (RoiAlign), as in two-stage models")
    kind = "logits" if key == "logits" else "probabilities, whose logits are not to be found,"
    summary = f"{count or 'any number of'} rows, mask {kind} {width} x {height}; suppression is the export's own"
    reading = {**_READING, "masks": f"a sigmoid over the whole image{'' if key == 'logits' else ', turned back'}"}
    evidence = [] if against else evidence
    return Match(image, outputs, 0, _PIXELS, _RESIZE, summary, 0, (), reading, tuple(evidence), tuple(against))


def _size(image: Port) -> str:
    _, height, width = sizes_of(image)
    return f"{width} x {height}"


def _inside(export: Export) -> list[Port]:
    """Tensors in mmdeploy's graph that may be heads' outputs: there it brings their channels to the end."""
    found = {}
    for node in export.model.graph.node:
        order = [list(item.ints) for item in node.attribute if item.name == "perm"]
        # It copies the features for every instance.
        if (node.op_type == "Transpose" and order == [[0, 2, 3, 1]]) or node.op_type == "Unsqueeze":
            port = export.port(node.input[0])
            if port is not None and is_float(port) and port.rank == 4 and min(sizes_of(port)) > 0:
                found[port.name] = port
    return list(found.values())


def _heads_among(export: Export, image: Port, ports: Iterable[Port]) -> dict[str, Port] | None:
    """The heads' outputs by `classes0`, `boxes0`, `kernels0`, `classes1`, ... (finest first) and `features`."""
    grids: dict[tuple[int, ...], list[Port]] = {}
    for port in ports:
        if not is_float(port) or port.rank != 4 or min(sizes_of(port)) < 1:
            return None
        grids.setdefault(sizes_of(port)[1:], []).append(port)
    levels = sorted(grids, reverse=True)
    if not levels or not all(_fits(image, level) for level in levels):
        return None
    finest = [dict(zip((*_PARTS, "features"), order, strict=True)) for order in _orders(grids[levels[0]], 4)]
    found = [parts for parts in finest if _is_level(export, parts) and _width(parts["features"], parts["kernels"])]
    # With as many classes as features, they differ in nothing but that features come last.
    last = max((grids[levels[0]].index(parts["features"]) for parts in found), default=0)
    found = [parts for parts in found if parts["features"] is grids[levels[0]][last]]
    if len(found) != 1:
        return None
    features = found[0].pop("features")
    heads = {"features": features}
    for place, level in enumerate(levels):
        orders = found if place == 0 else [dict(zip(_PARTS, order, strict=True)) for order in _orders(grids[level], 3)]
        same = [parts for parts in orders if _is_level(export, parts) and _alike(parts, found[0])]
        if len(same) != 1:
            return None
        heads.update({f"{part}{place}": port for part, port in same[0].items()})
    return heads


def _orders(ports: Sequence[Port], count: int) -> Iterable[Sequence[Port]]:
    return permutations(ports) if len(ports) == count else ()


def _fits(image: Port, level: tuple[int, ...]) -> bool:
    """Return whether a grid's positions are a whole number of pixels apart, in both directions the same."""
    _, height, width = sizes_of(image)
    stride = width // level[1]
    return stride > 0 and (height, width) == (level[0] * stride, level[1] * stride)


def _is_level(export: Export, parts: dict[str, Port]) -> bool:
    """Return whether boxes are four distances, which are not negative, as classes and kernels may be."""
    distances = [_is_positive(export, parts[part]) for part in _PARTS]
    return sizes_of(parts["boxes"])[0] == 4 and distances == [False, True, False]


def _is_positive(export: Export, port: Port) -> bool:
    node = export.producer(port.name)
    while node is not None and node.op_type in ("Identity", "Cast", "Mul", "Clip"):
        node = export.producer(node.input[0])
    return node is not None and node.op_type in ("Relu", "Exp")


def _alike(parts: dict[str, Port], others: dict[str, Port]) -> bool:
    return all(sizes_of(port)[0] == sizes_of(others[part])[0] for part, port in parts.items())


def _width(features: Port, kernels: Port) -> int:
    return layer_width(sizes_of(features)[0], sizes_of(kernels)[0]) or 0
