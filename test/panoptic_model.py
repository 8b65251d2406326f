"""Canonical models with class maps that really see the rectangles of colour_model.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from colour_model import BACKGROUND, MASK_STRIDE, NAMES, save_canonical_colour_model
from layouts import unet
from onnx import TensorProto, helper, numpy_helper

from seg_perception.core.contract import CLASS_MAP_OUTPUT, INPUT_NAME, METADATA_KEY, NO_CLASS, ModelSpec

GROUND, AIR = len(NAMES), len(NAMES) + 1


def save_semantic_model(path: Path) -> Path:
    """A class map of `unet.CLASSES` and no instances; `FAULT_COLOUR` makes the network's logits NaN."""
    from seg_perception.offboard.toolchain.prepare import prepare

    source = path.with_suffix(".raw.onnx")
    unet.export(source)
    prepare(source, path)
    source.unlink()
    return path


def save_panoptic_model(path: Path, width: int = 320, height: int = 192) -> Path:
    """Instances of the rectangles, and a class map of the background: air above, ground below, `NO_CLASS` elsewhere."""
    save_canonical_colour_model(path, width=width, height=height)
    model = onnx.load(path)
    rows, columns = height // MASK_STRIDE, width // MASK_STRIDE
    middle, stride, every = MASK_STRIDE // 2, MASK_STRIDE, np.iinfo(np.int64).max
    stuff = np.where(np.arange(rows)[:, None] < rows // 2, AIR, GROUND) * np.ones((1, columns))
    constants = {
        "starts": np.array([middle, middle]),
        "ends": np.array([every, every]),
        "axes": np.array([1, 2]),
        "steps": np.array([stride, stride]),
        "channels": np.array([3]),
        "background": np.float32(BACKGROUND),
        "limit": np.float32(1),
        "stuff": stuff[None].astype(np.float32),
        "none": np.float32(NO_CLASS),
    }
    nodes: tuple[tuple[str, list[str], dict[str, Any]], ...] = (
        ("Slice", [INPUT_NAME, "starts", "ends", "axes", "steps"], {}),
        ("Cast", [], {"to": TensorProto.FLOAT}),
        ("Sub", ["background"], {}),
        ("Abs", [], {}),
        ("ReduceMax", ["channels"], {"keepdims": 0}),
        ("Less", ["limit"], {}),
        ("Where", ["stuff", "none"], {}),
        ("Cast", [], {"to": TensorProto.UINT8}),
    )
    before = ""
    for place, (operator, inputs, attributes) in enumerate(nodes):
        output = CLASS_MAP_OUTPUT if place == len(nodes) - 1 else f"stuff/{place}"
        names = [name if name not in constants else f"stuff/{name}" for name in inputs]
        model.graph.node.append(
            helper.make_node(operator, [before, *names] if before else names, [output], **attributes)
        )
        before = output
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), f"stuff/{k}") for k, v in constants.items())
    model.graph.output.append(helper.make_tensor_value_info(before, TensorProto.UINT8, [1, rows, columns]))
    spec = ModelSpec.from_metadata({item.key: item.value for item in model.metadata_props}, str(path))
    classes = (*spec.class_names, "ground", "air")
    spec = replace(spec, class_names=classes, things=(*spec.things, False, False), class_map=True)
    helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path
