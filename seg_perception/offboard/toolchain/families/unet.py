"""U-Net and every other network that gives class scores for each pixel (DeepLab, FCN, LR-ASPP, FPN, SegFormer, ...).

    scores   `[B, C, h, w]` or `[B, h, w, C]`  logits or probabilities, at the size of the input or smaller
    classes  `[B, h, w]` or `[B, 1, h, w]`     integers out of an ArgMax; it is cut off, as a Softmax is

A cell's class is the best one. Where the scores end in a Sigmoid, classes do not compete: a cell whose best class is
below a half has none. One channel is one class and no background, inside where its logit is above 0, or above a half
behind a Sigmoid. Further outputs of the same shape (auxiliary classifiers, deep supervision) are dropped. Where their
names are not alike they may be of other tasks, and the user is asked.

What such networks want to see depends on their training; ImageNet's mean and deviation are what most have.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
import onnx

from seg_perception.core.contract import FAULTY_CELL, NO_CLASS
from seg_perception.core.geometry import ResizeSpec
from seg_perception.core.text import printable

from ..evidence import maker
from ..export import Export, Port
from ..formulas import GraphBuilder, Value
from ..graph import attribute
from ..head import HeadOptions, SemanticHead, finite
from . import IMAGENET, Match, image_input, is_float, sizes_of

# Nodes that keep the channel that is best, and whether it is above a half.
_NEUTRAL = {"Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape", "Resize", "Upsample", "Dropout"}
# Detection heads have cells of 16 and 32 pixels; scores of pixels are mostly given at a quarter or an eighth.
_DETECTOR_STRIDE = 16
_SOFTMAX = {"Softmax", "LogSoftmax"}
# Key of scores `[B, h, w, C]`, as TensorFlow has them.
_LAST = "last "
_INTEGERS = {onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.UINT8}


class UNet:
    """See the module."""

    name = "unet"
    expects = (
        "one output (or several of equal shape, of which the first counts): float class scores [B, classes, h, w] or "
        "[B, h, w, classes], or "
        "integer classes [B, h, w] or [B, 1, h, w] out of an ArgMax over axis 1 (U-Net, DeepLab and the like)"
    )

    def recognise(self, export: Export) -> Match | None:
        """By the only output's shape, which is that of the input scaled down."""
        image = image_input(export)
        if image is None or not export.outputs or len({(port.shape, port.element) for port in export.outputs}) > 1:
            return None
        key, scores = _scores(export, export.outputs[0], image) or ("", None)
        if scores is None:
            return None
        classes, height, width = _sizes(key, scores)
        key += "probabilities" if _ends_in_sigmoid(export, scores) else "logits"
        how = "the best class" if key.endswith("logits") else "after their sigmoid, the best class that is above a half"
        return Match(
            image,
            {key: scores},
            classes,
            IMAGENET,
            ResizeSpec("letterbox", pad_value=114),
            f"{classes} {'classes' if classes > 1 else 'class'}, {width} x {height} cells"
            + (f", the first of {len(export.outputs)} outputs" if len(export.outputs) > 1 else ""),
            reading={"scores": how, "masks": "class scores over the whole image"},
            against=tuple(_against(export, scores, image, classes, height)),
        )

    def write_head(self, graph: GraphBuilder, match: Match, options: HeadOptions) -> SemanticHead:
        """Write the best class of each cell."""
        ((key, port),) = match.outputs.items()
        _, height, width = _sizes(key, port)
        scores = graph.value(port.name)
        if key.startswith(_LAST):
            scores = scores.transpose(0, 3, 1, 2)
        cells = _cells(scores, match.class_count, key.endswith("probabilities"))
        # Summed over the classes first: of logits that are numbers, only absurd ones (above 1e36) could overflow.
        usable = finite(scores.sum(1), 1, 2).reshape(-1, 1, 1)
        return SemanticHead(usable.where(cells, float(FAULTY_CELL)).cast(np.uint8), height, width)


def _against(export: Export, scores: Port, image: Port, classes: int, height: int) -> Iterator[str]:
    """Yield what says that these channels are no class scores of pixels."""
    if classes > FAULTY_CELL:
        yield f"a class map holds {FAULTY_CELL} classes, and these are {classes} channels, as of an image encoder"
    endings = _joined_activations(export, scores)
    if len(endings) > 1:
        yield f"its channels are joined of parts that end differently ({', '.join(endings)}), as of a detection head"
    stride = (image.shape or (0,) * 4)[2] or 0
    if stride >= _DETECTOR_STRIDE * height:
        yield f"its cells are {stride // height} pixels high, as those of a detection head or an image encoder"
    names = _tasks(export.outputs)
    if len(names) > 1:
        yield (
            f"its {len(names)} outputs have names of their own ({', '.join(map(printable, names))}), as of several "
            "tasks; --family unet takes the first, and for another one export the model with that output alone"
        )


def _joined_activations(export: Export, scores: Port) -> list[str]:
    """Return how the parts end of which the channels are joined; one or none where all end alike."""
    join = maker(export, scores.name, _NEUTRAL)
    if join is None or join.op_type != "Concat":
        return []
    ends = [node for name in join.input if (node := export.graph.producer(name)) is not None]
    # The share of the background is often written as one less that of the object.
    kinds = {node.op_type for node in ends if node.op_type != "Sub" or node.input[1] not in join.input}
    return sorted(kinds) if kinds & {"Sigmoid", *_SOFTMAX} else []


def _tasks(outputs: Sequence[Port]) -> list[str]:
    """Return the names of outputs that differ by more than numbers; auxiliary ones are said to be such."""
    main = [port.name for port in outputs if "aux" not in port.name.lower()]
    stems = {re.sub(r"[^a-z]+", "", name.lower()): name for name in reversed(main)}
    return list(stems.values())[::-1]


def family() -> UNet:
    """Return what `known_families` asks for."""
    return UNet()


def _cells(scores: Value, classes: int, probabilities: bool) -> Value:
    """The class of each cell, float32 `[B, h, w]`, given `[B, C, h, w]`."""
    threshold = 0.5 if probabilities else 0.0
    if classes == 1:
        return (scores.max(1) > threshold).where(0.0, float(NO_CLASS))
    best = scores.argmax(1).cast(np.float32)
    return (scores.max(1) > threshold).where(best, float(NO_CLASS)) if probabilities else best


def _scores(export: Export, output: Port, image: Port) -> tuple[str, Port] | None:
    """The class scores behind an output, before ArgMax and Softmax, and `_LAST` where channels are their last axis."""
    axis = 0
    if output.element in _INTEGERS:
        node = maker(export, output.name, _NEUTRAL - {"Resize", "Upsample"})
        axis = 0 if node is None or node.op_type != "ArgMax" else int(attribute(node, "axis", 0)) % 4
        found = export.port(node.input[0]) if node is not None and axis in (1, 3) else None
    else:
        found = output
    if found is None or found.rank != 4 or not is_float(found) or min(sizes_of(found)) < 1:
        return None
    layouts = [key for key, place in (("", 1), (_LAST, 3)) if axis in (0, place) and _same_aspect(key, found, image)]
    if not layouts:
        return None
    node = maker(export, found.name, {"Identity", "Cast"})
    channels = 3 if layouts[0] else 1
    if node is not None and node.op_type in _SOFTMAX and int(attribute(node, "axis", -1)) % 4 == channels:
        # A Softmax over the only channel makes every score 1; only the logits mean anything.
        found = export.port(node.input[0]) or found
    return layouts[0], found


def _ends_in_sigmoid(export: Export, scores: Port) -> bool:
    node = maker(export, scores.name, _NEUTRAL)
    return node is not None and node.op_type == "Sigmoid"


def _same_aspect(key: str, scores: Port, image: Port) -> bool:
    """Return whether the grid is the input scaled down, to the cell."""
    _, height, width = _sizes(key, scores)
    _, image_height, image_width = sizes_of(image)
    down, across = height / image_height, width / image_width
    return max(down, across) <= 1 and abs(down - across) <= 1 / min(image_height, image_width)


def _sizes(key: str, port: Port) -> tuple[int, int, int]:
    """Channels, height and width, 0 for an unknown one."""
    first, second, third = sizes_of(port)
    return (third, first, second) if key.startswith(_LAST) else (first, second, third)
