"""Mask2Former, MaskFormer and EoMT, as Hugging Face's `transformers` names them and `torch.onnx.export` writes them.

    class_queries_logits  `[B, Q, C + 1]`   class logits of each query, the last for no object; a softmax
    masks_queries_logits  `[B, Q, h, w]`    mask logits over the whole image

Instances are the best pairs of a query and a class of things; their score is the class's probability times the mean
probability of the mask's inside. Nothing is suppressed: queries are trained not to find the same object twice. With
stuff among the classes there is a class map, too: each cell's class is the one with the greatest sum, over all
queries, of class probability times mask probability, or none where even that is below a tenth. Things take part in it,
so that it is the whole scene even where no instance is sure enough to be reported.

An export of the bare model has further outputs, inner states that its own nodes go on to use; they are dropped. An
upsampling of the masks behind the network is cut off, as painting samples the masks anyway.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from seg_perception.core.contract import FAULTY_CELL, NO_CLASS
from seg_perception.core.geometry import ResizeSpec

from ..evidence import maker
from ..export import Export, Port
from ..graph import GraphBuilder, Value
from ..head import Head, HeadOptions, InstanceHead, SemanticHead, best_rows, boxes_of_masks, finite, take_rows
from . import IMAGENET, Match, image_input, is_float, logits_behind, sizes_of

_NAMES = ("class_queries_logits", "masks_queries_logits")
# As in the image processors: keeps the mean over an empty mask finite.
_EPSILON = 1e-6
# Where no query claims a cell, its class would be a matter of how a runtime rounds small numbers.
_LEAST_CLAIM = 0.1


class Mask2Former:
    """See the module."""

    name = "mask2former"
    expects = (
        "two float outputs for the same queries Q: class logits [B, Q, classes + 1], the last for no object, and mask "
        "logits [B, Q, h, w] (Mask2Former, MaskFormer, EoMT); others only if the network itself uses them"
    )

    def recognise(self, export: Export) -> Match | None:
        """By the two outputs, whatever their names and order."""
        image = image_input(export)
        outputs = _outputs(export)
        if image is None or outputs is None:
            return None
        classes, masks = outputs
        if _is_probability(export, classes) or logits_behind(export, masks) is not None:
            return None
        masks = export.before_upsampling(masks)
        queries, columns = sizes_of(classes)
        _, height, width = sizes_of(masks)
        if columns < 2 or min(queries, height, width) < 1:
            return None
        return Match(
            image,
            {"classes": classes, "masks": masks},
            columns - 1,
            IMAGENET,
            ResizeSpec("stretch"),
            f"{queries} queries, {columns - 1} classes, masks {width} x {height}",
            reading={
                "scores": "logits, a softmax whose last column is no object",
                "boxes": "from each mask's support",
                "masks": "logits over the whole image",
            },
        )

    def write_head(self, graph: GraphBuilder, match: Match, options: HeadOptions) -> Head:
        """Instances of the things, a class map if there is stuff."""
        logits, masks = (graph.value(match.outputs[key].name) for key in ("classes", "masks"))
        _, height, width = sizes_of(match.outputs["masks"])
        usable = finite(logits, 1, 2) & finite(masks, 1, 2, 3)
        probabilities, _ = graph.node("Softmax", logits, axis=2).split(2, match.class_count, 1)
        inside = graph.node("Sigmoid", masks)
        class_map = None if all(match.things) else _class_map(graph, probabilities, inside, usable, match)
        if class_map is not None and not any(match.things):
            return SemanticHead(class_map, height, width)
        head = _instances(graph, probabilities, masks, inside, match, options)
        scores = usable.unsqueeze(1).where(head.scores, float("nan"))
        return replace(head, scores=scores, class_map=class_map)


def family() -> Mask2Former:
    """Return what `known_families` asks for."""
    return Mask2Former()


def _instances(
    graph: GraphBuilder, probabilities: Value, masks: Value, inside: Value, match: Match, options: HeadOptions
) -> InstanceHead:
    """The best pairs of query and class of things.

    Args:
        graph: where to write.
        probabilities: float32 `[B, Q, C]`.
        masks, inside: logits and probabilities, float32 `[B, Q, h, w]`.
        match: what was recognised.
        options: the user's.
    """
    queries, height, width = sizes_of(match.outputs["masks"])
    _, network_height, network_width = sizes_of(match.image)
    support = (masks > 0.0).cast(np.float32)
    quality = graph.node("Div", (inside * support).sum(2, 3), support.sum(2, 3) + _EPSILON)
    things = graph.constant(np.array(match.things, np.float32))
    scores = (probabilities * things * quality.unsqueeze(2)).reshape(0, queries * match.class_count)
    count = min(options.max_instances, queries * sum(match.things))
    rows = best_rows(scores, count)
    classes = graph.constant(match.class_count, np.int64)
    query = graph.node("Div", rows.indices, classes)
    labels = (rows.indices - query * classes).cast(np.float32) * rows.used
    chosen = take_rows(masks, query) * rows.used.unsqueeze(2, 3)
    return InstanceHead(
        boxes=boxes_of_masks(graph, chosen, (height, width), (network_height, network_width)),
        scores=rows.of(scores),
        labels=labels.cast(np.int32),
        masks=chosen,
        max_instances=count,
        mask_height=height,
        mask_width=width,
    )


def _class_map(graph: GraphBuilder, probabilities: Value, inside: Value, usable: Value, match: Match) -> Value:
    """The class of each cell, uint8 `[B, h, w]`; arguments as for `_instances`, and bool `[B]`."""
    queries, height, width = sizes_of(match.outputs["masks"])
    totals = probabilities.transpose(0, 2, 1) @ inside.reshape(0, queries, height * width)
    best = (totals.max(1) > _LEAST_CLAIM).where(totals.argmax(1).cast(np.float32), float(NO_CLASS))
    cells = best.reshape(0, height, width)
    return usable.reshape(-1, 1, 1).where(cells, float(FAULTY_CELL)).cast(np.uint8)


def _outputs(export: Export) -> tuple[Port, Port] | None:
    """The class logits and the masks among the outputs."""
    named = {port.name: port for port in export.outputs}
    own = [named[name] for name in _NAMES if name in named]
    final = own if len(own) == 2 else [port for port in export.outputs if not _is_inner(export, port)]
    # An output that is left out without a reason is one whose meaning is not understood.
    if len(final) != 2 or not all(map(is_float, final)):
        return None
    pairs = [
        (classes, masks)
        for classes in final
        for masks in final
        if (classes.rank, masks.rank) == (3, 4) and sizes_of(classes)[0] == sizes_of(masks)[0]
    ]
    return pairs[0] if len(pairs) == 1 else None


def _is_inner(export: Export, port: Port) -> bool:
    """Return whether an output is a state of the network that another output is computed from."""
    node = maker(export, port.name, ("Identity", "Cast", "Transpose", "Reshape"))
    others = (other.name for other in export.outputs if other.name != port.name)
    return node is not None and any(
        ancestor.output[0] == node.output[0] for other in others for ancestor in export.ancestors(other)
    )


def _is_probability(export: Export, port: Port) -> bool:
    """Return whether class scores are what an activation made of logits, which is not what this family's are."""
    node = maker(export, port.name, ("Identity", "Cast", "Slice"))
    return node is not None and node.op_type in ("Sigmoid", "Softmax")
