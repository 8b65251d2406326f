"""Multiply-accumulates against sums done by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from colour_model import colour_model
from onnx import TensorProto, helper
from small_graphs import floats, model_of

from seg_perception.offboard.toolchain.precision.cost import PrecisionSummary, layer_costs, precision_summary
from seg_perception.offboard.toolchain.precision.half import to_half


@pytest.mark.parametrize(
    ("node", "inputs", "constants", "expected"),
    [
        # 16 x 10 x 12 outputs, each over 8 channels of 3 x 3.
        (("Conv", {"pads": [1, 1, 1, 1]}), {"x": [1, 8, 10, 12]}, {"w": floats(16, 8, 3, 3)}, 16 * 10 * 12 * 8 * 9),
        # Stride 2: 5 x 6 outputs. Two groups: 4 channels each.
        (
            ("Conv", {"strides": [2, 2], "group": 2, "pads": [1, 1, 1, 1]}),
            {"x": [1, 8, 10, 12]},
            {"w": floats(16, 4, 3, 3)},
            16 * 5 * 6 * 4 * 9,
        ),
        # Depthwise, and without padding.
        (("Conv", {"group": 8}), {"x": [1, 8, 10, 12]}, {"w": floats(8, 1, 3, 3)}, 8 * 8 * 10 * 9),
        # 8 x 5 x 6 inputs, each to 4 channels of 2 x 2.
        (("ConvTranspose", {"strides": [2, 2]}), {"x": [1, 8, 5, 6]}, {"w": floats(8, 4, 2, 2)}, 8 * 5 * 6 * 4 * 4),
        (("MatMul", {}), {"x": [3, 7, 5], "w": [3, 5, 11]}, {}, 3 * 7 * 11 * 5),
        (("Gemm", {}), {"x": [7, 5]}, {"w": floats(5, 11)}, 7 * 11 * 5),
        (("Gemm", {"transA": 1, "transB": 1}), {"x": [5, 7]}, {"w": floats(11, 5)}, 7 * 11 * 5),
        (("Einsum", {"equation": "bqc,bchw->bqhw"}), {"x": [2, 3, 4], "w": [2, 4, 5, 6]}, {}, 2 * 3 * 4 * 5 * 6),
        # An open batch counts as one image.
        (("Conv", {}), {"x": ["batch", 8, 10, 12]}, {"w": floats(16, 8, 1, 1)}, 16 * 10 * 12 * 8),
    ],
)
def test_counts_are_those_done_by_hand(node, inputs, constants, expected):
    kind, attributes = node
    rank = 4 if kind == "Einsum" else len(inputs["x"])
    model = model_of(
        [helper.make_node(kind, ["x", "w"], ["y"], name="it", **attributes)], inputs, {"y": rank}, constants
    )
    (layer,) = layer_costs(model)
    assert (layer.name, layer.operator, layer.macs, layer.element) == ("it", kind, expected, "float32")


def test_shapes_that_nodes_compute_are_followed():
    # As torch writes `y = x.reshape(b, c // 2, 2, h, w)`: shapes cut, divided and joined again.
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Shape", ["c"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["channels"], axis=0),
        helper.make_node("Slice", ["shape", "two", "four", "zero"], ["area"]),
        helper.make_node("Div", ["channels", "two"], ["half"]),
        helper.make_node("Concat", ["one", "half", "area"], ["target"], axis=0),
        helper.make_node("Slice", ["c", "zero", "half", "one"], ["cut"]),
        helper.make_node("Reshape", ["cut", "target"], ["again"]),
        helper.make_node("Conv", ["again", "v"], ["y"]),
    ]
    numbers = {name: np.array([value], np.int64) for name, value in {"zero": 0, "one": 1, "two": 2, "four": 4}.items()}
    constants = {"w": floats(6, 2, 1, 1), "v": floats(5, 3, 1, 1), **numbers}
    model = model_of(nodes, {"x": [1, 2, 4, 8]}, {"y": 4}, constants)
    assert [layer.macs for layer in layer_costs(model)] == [6 * 32 * 2, 5 * 32 * 3]


def quantized(name, scale):
    """Q and DQ behind tensor `name`."""
    return [
        helper.make_node("QuantizeLinear", [name, scale, "zero_point"], [f"{name}_q"], name=f"{name}_Q"),
        helper.make_node("DequantizeLinear", [f"{name}_q", scale, "zero_point"], [f"{name}_dq"], name=f"{name}_DQ"),
    ]


def half_quantized_model():
    """One convolution of 1000 multiply-accumulates in INT8, one of 250 with only its weights quantized, one of 500."""
    nodes = [
        *quantized("x", "scale"),
        helper.make_node("DequantizeLinear", ["w_q", "scale", "zero_point"], ["w_dq"]),
        helper.make_node("Conv", ["x_dq", "w_dq"], ["a"], name="both"),
        helper.make_node("DequantizeLinear", ["v_q", "scale", "zero_point"], ["v_dq"]),
        helper.make_node("Conv", ["a", "v_dq"], ["b"], name="weights"),
        helper.make_node("Conv", ["b", "u"], ["y"], name="none"),
    ]
    constants = {
        "scale": np.float32(0.01),
        "zero_point": np.int8(0),
        "w_q": np.ones((10, 4, 1, 1), np.int8),
        "v_q": np.ones((1, 10, 1, 1), np.int8),
        "u": floats(20, 1, 1, 1),
    }
    return model_of(nodes, {"x": [1, 4, 5, 5]}, {"y": 4}, constants)


def test_a_layer_is_int8_when_all_its_factors_are():
    model = half_quantized_model()
    assert {layer.name: (layer.macs, layer.element) for layer in layer_costs(model)} == {
        "both": (1000, "int8"),
        "weights": (250, "float32"),
        "none": (500, "float32"),
    }
    summary = precision_summary(to_half(model)[0])
    assert summary.macs == {"int8": 1000, "float16": 750}
    assert (summary.total, summary.share("int8"), summary.share("float32")) == (1750, 1000 / 1750, 0)
    assert [layer.name for layer in summary.kept] == ["none", "weights"]
    assert str(summary) == "0.00 G multiply-accumulates: int8 57.1%, float16 42.9%"
    written = json.loads(json.dumps(summary.to_dict()))
    assert written["macs"] == {"int8": 1000, "float16": 750}
    assert written["kept"][0] == {"name": "none", "element": "float16", "macs": 500}


def test_a_model_in_one_type_keeps_nothing_back():
    summary = precision_summary(colour_model())
    assert (summary.macs, summary.kept, summary.share("float32")) == ({}, (), 0)
    summary = precision_summary(to_half(half_quantized_model(), keep=["none"])[0])
    assert summary.macs == {"int8": 1000, "float16": 250, "float32": 500}
    assert [layer.element for layer in summary.kept] == ["float32", "float16"]


def test_shapes_that_depend_on_the_data_are_said_to():
    nodes = [
        helper.make_node("NonZero", ["x"], ["places"]),
        helper.make_node("Cast", ["places"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["numbers"], ["rows"]),
        helper.make_node("MatMul", ["rows", "w"], ["y"], name="product"),
    ]
    model = model_of(nodes, {"x": [4, 4]}, {"y": 2}, {"w": floats(2, 3)})
    assert precision_summary(model).unknown == ("product",)
    assert (
        str(precision_summary(model))
        == "0.00 G multiply-accumulates: none; 1 layer of unknown size is not counted: product"
    )


def test_many_layers_of_unknown_size_are_not_all_named():
    summary = PrecisionSummary({"float32": 10**9}, (), tuple("abcdefg"))
    assert str(summary).endswith("; 7 layers of unknown size are not counted: a, b, c, d, e and 2 more")
