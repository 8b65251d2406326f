"""Mask R-CNN, as torchvision exports it.

    boxes   `[N, 4]`                           x1 y1 x2 y2 in pixels of the input
    labels  `[N]`                              int64; 0 is the background's, so class tables begin with one
    scores  `[N]`                              descending
    masks   `[N, 1, H, W]` or `[N, 1, m, m]`   probabilities over the image, or over each box

mmdeploy writes rows of another form, which `rows` describes: masks over each box or pasted on the image. mmdet's
networks see ImageNet's mean and deviation.

N is whatever was found; here it becomes K rows. The masks are taken where they leave their Sigmoid, `[N, C, m, m]`
over each box: pasting them on the image is for `paint`. Like torchvision's own pasting, `paint` interpolates the
probabilities, so the "logits" are probabilities less a half.

The network itself has shapes that depend on what it sees (its proposals). CPUs run that; TensorRT can neither put it
into a CUDA graph nor, as a rule, build it.
"""

from __future__ import annotations

import numpy as np
import onnx

from seg_perception.core.geometry import ResizeSpec

from ..export import Export, Port
from ..graph import GraphBuilder, Value, with_inner
from ..head import HeadOptions, InstanceHead, finite, take_rows
from ..rows import detection_rows, has_regions, is_proportional, rows_head, spans_image
from . import IMAGENET, Match, PixelSpec, image_input, is_float, sizes_of

_CHECKED = "checked"
_CORNERS = "x1, y1, x2, y2 in pixels of the network"
# Nodes between the probabilities and the output that choose a class and paste, and compute nothing else.
_MOVING = {"Unsqueeze", "Squeeze", "Reshape", "Flatten", "Transpose", "Identity", "Cast", "Gather", "GatherND",
           "GatherElements", "Slice", "Concat", "Pad", "Expand", "Resize", "GridSample", "Loop"}  # fmt: skip
# Cells along a side; 28 are usual. A mask of the image that could not be traced back is larger.
_LARGEST_SIDE = 128


class MaskRCNN:
    """See the module."""

    name = "maskrcnn"
    expects = (
        "four outputs: float boxes [N, 4], int64 labels [N], float scores [N], and masks [N, 1, H, W] or [N, 1, m, m] "
        "out of a Sigmoid; input [3, H, W] or [1, 3, H, W] (torchvision's Mask R-CNN); or three outputs as of rtmdet, "
        "with masks [B, K, m, m] over each box"
    )

    def recognise(self, export: Export) -> Match | None:
        """By the four outputs, whatever their names and order."""
        image = image_input(export)
        rows = detection_rows(export)
        if image is not None and rows is not None:
            return _match_of_rows(export, image, rows)
        # Behind the loop that pastes, inference does not always see how many axes there are.
        outputs = {(4 if port.rank < 0 else port.rank, is_float(port)): port for port in export.outputs}
        if image is None or len(export.outputs) != 4 or set(outputs) != {(2, True), (1, False), (1, True), (4, True)}:
            return None
        boxes, masks = outputs[2, True], _masks(export, outputs[4, True])
        if boxes.shape is None or boxes.shape[1] != 4 or masks is None:
            return None
        found = {"boxes": boxes, "labels": outputs[1, False], "scores": outputs[1, True], "masks": masks}
        _, classes, height, width = masks.shape or ()
        checked = {
            f"{_CHECKED} {place}": port for place, port in enumerate((*_telling(export, boxes), outputs[1, True]))
        }
        return Match(
            image,
            found | checked,
            # Of masks without classes one cannot tell how many there are.
            classes if classes and classes > 1 else 0,
            PixelSpec(),
            ResizeSpec("letterbox", pad_value=114),
            f"masks of {width} x {height} on each box" + (f", {classes} classes with the background" * (classes != 1)),
            reading={
                "scores": "probabilities",
                "boxes": _CORNERS,
                "masks": "probabilities over each box",
            },
        )

    def write_head(self, graph: GraphBuilder, match: Match, options: HeadOptions) -> InstanceHead:
        """Pad or cut what was found to K rows."""
        ports = match.outputs
        if "dets" in ports:
            return rows_head(graph, match, options)
        _, classes, height, width = ports["masks"].shape or ()
        rows, size = options.max_instances, (height or 0, width or 0)
        boxes, labels, scores, masks = (graph.value(ports[key].name) for key in ("boxes", "labels", "scores", "masks"))
        if classes != 1:
            masks = take_rows(masks, labels.cast(np.int64).reshape(-1, 1))
        own = masks.reshape(-1, *size) - 0.5

        best, order = graph.concat(0, scores, graph.constant(np.zeros(rows))).top(rows)

        def padded(values: Value, *shape: int) -> Value:
            """The chosen rows of `[N, ...]`, 0 where there are not as many: `[1, K, ...]`."""
            longer = graph.concat(0, values, graph.constant(np.zeros((rows, *shape))))
            return graph.node("Gather", longer, order, axis=0).reshape(1, rows, *shape)

        faultless = graph.constant([True], np.bool_)
        for key, port in ports.items():
            if key.startswith(_CHECKED):
                axes = range(port.rank)
                faultless = faultless & finite(graph.value(port.name), *axes).reshape(1)
        return InstanceHead(
            boxes=padded(boxes, 4),
            scores=faultless.where(best, float("nan")).reshape(1, rows),
            labels=padded(labels.cast(np.float32)).cast(np.int32),
            masks=padded(own, *size),
            max_instances=rows,
            mask_height=size[0],
            mask_width=size[1],
            mask_frame="box",
        )


def family() -> MaskRCNN:
    """Return what `known_families` asks for."""
    return MaskRCNN()


def _match_of_rows(export: Export, image: Port, rows: dict[str, Port]) -> Match | None:
    """Rows as mmdeploy writes them, of masks over boxes or pasted on the image."""
    _, height, width = sizes_of(rows["masks"])
    pasted = spans_image(rows["masks"], image)
    if not pasted and (height != width or not 0 < height < _LARGEST_SIDE):
        return None
    regions = has_regions(export, rows["dets"])
    evidence: tuple[str, ...] = ("features cut out for regions (RoiAlign)",) if regions else ()
    if not pasted and not is_proportional(rows["masks"], image):
        evidence += (f"masks of {width} x {height}, which are no image of that form scaled down",)
    where = "the whole image" if pasted else "each box"
    return Match(
        image,
        rows if pasted else {"boxed" if key == "masks" else key: port for key, port in rows.items()},
        0,
        IMAGENET,
        ResizeSpec("letterbox", pad_value=0, anchor="top_left"),
        f"{sizes_of(rows['dets'])[0] or 'any number of'} rows, masks of {width} x {height} over {where}",
        reading={"scores": "probabilities", "boxes": _CORNERS, "masks": f"probabilities over {where}"},
        evidence=evidence,
        against=("masks of the size of the image, and no RoiAlign in the graph",) if pasted and not regions else (),
    )


def _masks(export: Export, output: Port) -> Port | None:
    """Probabilities over each box: `[N, C, m, m]` of every class, or `[N, 1, m, m]`, which no class is chosen from."""
    node = export.producer(output.name)
    while node is not None and node.op_type in _MOVING:
        node = export.producer(_moved(export, node))
    found = export.port(node.output[0]) if node is not None and node.op_type == "Sigmoid" else output
    if found is None or found.shape is None or found.rank != 4 or not found.shape[1]:
        return None
    rows, classes, *sizes = found.shape
    height, width = (size or _side(export, found.name) for size in sizes)
    square = height == width and height < _LARGEST_SIDE
    return Port(found.name, (rows, classes, height, width), found.element) if square else None


def _moved(export: Export, node: onnx.NodeProto) -> str:
    """The tensor whose values a node hands on; a loop takes them from the graph around it."""
    if node.op_type != "Loop":
        return str(node.input[0])
    taken = (export.port(name) for inner in with_inner(node) for name in inner.input)
    return next((port.name for port in taken if port is not None and port.rank == 4 and is_float(port)), "")


def _side(export: Export, masks: str) -> int:
    """Return how many cells a mask has along a side, where inference lost it behind the sorting of boxes by their size.

    Features are cut out at one size, and each transposed convolution enlarges them by its stride.
    """
    side = 1
    for node in export.ancestors(masks):
        attributes = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type == "ConvTranspose" and "strides" in attributes:
            side *= attributes["strides"].ints[0]
        if node.op_type == "RoiAlign":
            return side * (attributes["output_height"].i if "output_height" in attributes else 1)
    return 0


def _telling(export: Export, boxes: Port) -> list[Port]:
    """Return where NaN and infinity would show: in what is found they do not, as what they touch is not found.

    That is what the proposals are chosen by, and everything that the head of boxes computes.
    """
    tensors = {}
    for node in export.ancestors(boxes.name):
        if node.op_type in ("TopK", "Softmax", "Gemm"):
            name = node.output[0] if node.op_type == "Gemm" else node.input[0]
            tensors[name] = export.port(name)
    return [port for port in tensors.values() if port is not None and is_float(port) and port.rank > 0]
