"""Transformers that find a box, class scores and a mask for each of Q queries: DETR and what came of it.

    boxes    `[B, Q, 4]`     centre x, centre y, width, height as shares of the network's width and height
    classes  `[B, Q, C]`     class logits
    masks    `[B, Q, h, w]`  mask logits over the whole image

Families with these outputs differ in what the logits mean and in what the network wants to see. Neither shows in the
shapes, so that names, the exporter's metadata, operators and a run decide which family it is, or the user.

Nothing is suppressed: queries are trained not to find the same object twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.geometry import ResizeSpec

from .evidence import maker, operators_behind
from .export import Export, Port
from .families import Match, PixelSpec, image_input, is_float, sizes_of
from .graph import GraphBuilder, Value
from .head import HeadOptions, InstanceHead, corners_of_centres, finite, take_rows

_ACTIVATIONS = ("Sigmoid", "Softmax")
# Part of the queries of which all must say the same for a run to tell what the last column means.
_MOST = 0.9


@dataclass(frozen=True)
class QueryFamily:
    """A family of such models.

    Attributes:
        name, expects: see `families.Family`.
        pixels, resize: as its package does it.
        names: sets of output names that its exporters write.
        exporters: values of `model_family` in the metadata, as LibreYOLO writes them.
        softmax: whether the logits go through a softmax whose last column is no object, or each through a sigmoid.
        spare: whether the last column may mean nothing.
        patches: whether its backbone cuts the image into patches, as vision transformers do.
        deformable: whether its decoder samples features at positions, with GridSample.
    """

    name: str
    expects: str
    pixels: PixelSpec
    resize: ResizeSpec
    names: tuple[frozenset[str], ...]
    exporters: frozenset[str]
    softmax: bool = False
    spare: bool = False
    patches: bool = False
    deformable: bool = True

    def recognise(self, export: Export) -> Match | None:
        """By the three outputs; whether they mean what they mean here, the evidence says."""
        image = image_input(export)
        outputs = sorted((port for port in export.outputs if is_float(port)), key=lambda port: port.rank)
        if image is None or [port.rank for port in outputs] != [3, 3, 4] or len(export.outputs) != 3:
            return None
        boxes, classes = _boxes_first(outputs[0], outputs[1])
        masks = outputs[2]
        queries, columns = sizes_of(classes)
        if min(*sizes_of(classes), *sizes_of(masks)) < 1 or sizes_of(boxes) != (queries, 4):
            return None
        _, height, width = sizes_of(masks)
        _, network_height, network_width = sizes_of(image)
        # RF-DETR's models of keypoints have an output of four axes, too.
        spans = abs(height * network_width - width * network_height) <= max(network_height, network_width)
        if sizes_of(masks)[0] != queries or not spans or (self.softmax and columns < 2):
            return None
        activated = maker(export, classes.name, ("Identity", "Cast"))
        activation = activated.op_type if activated is not None and activated.op_type in _ACTIVATIONS else ""
        logits = export.port(activated.input[0]) if activated is not None and activation else None
        evidence, against = self._evidence(export, columns, activation)
        count = columns - self.softmax
        scores = "logits, a softmax whose last column is no object" if self.softmax else "logits, a sigmoid each"
        return Match(
            image,
            {"boxes": boxes, "classes": logits or classes, "masks": masks},
            count,
            self.pixels,
            self.resize,
            f"{queries} queries, {columns} columns of classes, masks {width} x {height}",
            spare_classes=int(self.spare),
            reading={
                "scores": scores,
                "boxes": "centre x, centre y, width, height as shares of the image",
                "masks": "logits over the whole image",
            },
            evidence=evidence,
            against=against,
            probe=self._probe,
        )

    def _evidence(self, export: Export, columns: int, activation: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return what speaks for this family and what against it."""
        evidence: list[str] = []
        against: list[str] = []
        exporter = export.metadata.get("model_family", "")
        if exporter:
            (evidence if exporter in self.exporters else against).append(f"model_family {exporter!r} in its metadata")
        names = frozenset(port.name for port in export.outputs)
        if names in self.names:
            evidence.append(f"outputs called {', '.join(sorted(names))}")
        if activation:
            fits = (activation == "Softmax") == self.softmax
            (evidence if fits and self.softmax else against if not fits else []).append(f"{activation} in the graph")
        if not self.deformable and any("GridSample" in operators_behind(export, port.name) for port in export.outputs):
            against.append("GridSample, of deformable attention, in the graph")
        if _cuts_patches(export) and self.patches:
            evidence.append("a backbone that cuts the image into patches")
        named = export.name_count()
        if named == (columns if self.softmax else columns - 1) and not self.spare:
            against.append(f"{named} class names for {columns} columns")
        return tuple(evidence), tuple(against)

    def _probe(self, match: Match, outputs: Mapping[str, NDArray[Any]]) -> Match:
        """Return what the last column says of a grey image, in which nothing is to be found."""
        logits = outputs.get(match.outputs["classes"].name)
        if logits is None or not np.isfinite(logits).all():
            return match
        last, others = logits[..., -1], logits[..., :-1].max(axis=-1, initial=-np.inf)
        if np.mean((last > 0) & (last > others)) >= _MOST:
            text = "the last column is the best of nearly all queries where there is nothing to see"
            return replace(match, evidence=(text,)) if self.softmax else replace(match, against=(*match.against, text))
        if self.softmax and np.mean(np.maximum(last, others) < 0) >= _MOST:
            return replace(match, against=(*match.against, "no column is above 0 where there is nothing to see"))
        return match

    def write_head(self, graph: GraphBuilder, match: Match, options: HeadOptions) -> InstanceHead:
        """Write the best pairs of query and class; with a softmax, the best class of the best queries."""
        boxes, classes, masks = (graph.value(match.outputs[key].name) for key in ("boxes", "classes", "masks"))
        queries, columns = sizes_of(match.outputs["classes"])
        _, height, width = sizes_of(match.outputs["masks"])
        _, network_height, network_width = sizes_of(match.image)
        usable = finite(boxes, 1, 2) & finite(classes, 1, 2) & finite(masks, 1, 2, 3)
        classes = graph.node("Softmax", classes, axis=2) if self.softmax else classes
        if match.class_count < columns:
            classes, _ = classes.split(2, match.class_count, columns - match.class_count)
        if self.softmax:
            rows = min(options.max_instances, queries)
            scores, query = classes.max(2).top(rows)
            labels = classes.argmax(2).cast(np.float32).pick(query, 1)
        else:
            rows = min(options.max_instances, queries * match.class_count)
            logits, places = classes.reshape(0, queries * match.class_count).top(rows)
            count = graph.constant(match.class_count, np.int64)
            query = graph.node("Div", places, count)
            # By way of float32: integers of 64 and 32 bits are the same to OpenVINO, which then has two names for them.
            labels = (places - query * count).cast(np.float32)
            scores = graph.node("Sigmoid", logits)
        corners = corners_of_centres(take_rows(boxes, query).transpose(0, 2, 1))
        limits = (network_width, network_height) * 2
        return InstanceHead(
            boxes=graph.concat(1, *map(_within, corners, limits)).transpose(0, 2, 1),
            scores=usable.unsqueeze(1).where(scores, float("nan")),
            labels=labels.cast(np.int32),
            masks=take_rows(masks, query),
            max_instances=rows,
            mask_height=height,
            mask_width=width,
        )


def _boxes_first(one: Port, other: Port) -> tuple[Port, Port]:
    """Return which of two outputs are the boxes.

    Three classes and the spare column are four, too; then names decide, and without them the exporter's order.
    """
    if sizes_of(one)[1] == sizes_of(other)[1] and any(word in one.name for word in ("labels", "logits", "scores")):
        return other, one
    return (one, other) if sizes_of(one)[1] == 4 else (other, one)


def _cuts_patches(export: Export) -> bool:
    """Return whether the first convolution moves by its own size, and by at least eight pixels."""
    first = next((node for node in export.model.graph.node if node.op_type == "Conv"), None)
    values = {} if first is None else {item.name: list(item.ints) for item in first.attribute}
    size = values.get("kernel_shape", [])
    return len(size) == 2 and size == values.get("strides") and min(size) >= 8


def _within(corner: Value, limit: int) -> Value:
    """A coordinate as a share of the image's side, in pixels of it."""
    return (corner * float(limit)).maximum(0.0).minimum(float(limit))
