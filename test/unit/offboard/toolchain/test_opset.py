"""Operators that ONNX's converter cannot bring to the contract's opset, against ONNX's own reference."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from seg_perception.core.contract import OPSET
from seg_perception.core.errors import ModelError
from seg_perception.offboard.toolchain.opset import in_contract_opset

RNG = np.random.default_rng(0)


def model_of(opset, node, inputs, constants=(), element=TensorProto.FLOAT):
    """A model of one node; `inputs` are shapes by name."""
    ports = [helper.make_tensor_value_info(name, element, shape) for name, shape in inputs.items()]
    output = helper.make_tensor_value_info("y", element, None)
    graph = helper.make_graph([node], "one", ports, [output], list(constants))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def assert_same(open_session, model, tolerance=1e-5):
    """The converted model is valid, of the contract's opset, and computes the same."""
    converted = in_contract_opset(model, "model")
    assert [(item.domain, item.version) for item in converted.opset_import] == [("", OPSET)]
    onnx.checker.check_model(converted, full_check=True)
    feed = {}
    for port in model.graph.input:
        kind = port.type.tensor_type
        shape = [axis.dim_value for axis in kind.shape.dim]
        feed[port.name] = RNG.normal(size=shape).astype(helper.tensor_dtype_to_np_dtype(kind.elem_type))
    (expected,) = ReferenceEvaluator(model).run(None, feed)
    (found,) = open_session(converted)(feed).values()
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, atol=tolerance)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
@pytest.mark.parametrize("element", [TensorProto.FLOAT, TensorProto.FLOAT16])
@pytest.mark.parametrize("opset", [20, 21])
def test_gelu(open_session, opset, element, approximate):
    node = helper.make_node("Gelu", ["x"], ["y"], approximate=approximate)
    tolerance = 1e-5 if element == TensorProto.FLOAT else 5e-3
    assert_same(open_session, model_of(opset, node, {"x": [2, 3, 40]}, element=element), tolerance)


@pytest.mark.parametrize(("opset", "count"), [(18, 3), (19, 3), (20, 3), (21, 6)])
@pytest.mark.parametrize("shape", [[2, 6, 5], [2, 6, 4, 5]])
def test_group_normalization(open_session, opset, count, shape):
    """Scale and bias are one per group up to opset 20 and one per channel from 21 on."""
    constants = [numpy_helper.from_array(RNG.normal(size=count).astype(np.float32), name) for name in ("s", "b")]
    node = helper.make_node("GroupNormalization", ["x", "s", "b"], ["y"], num_groups=3, epsilon=1e-3)
    model = model_of(opset, node, {"x": shape}, constants)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, shape))
    if opset < 21:
        # What ONNX's reference has is the later one, with each group's numbers for each of its channels.
        later = [numpy_helper.from_array(numpy_helper.to_array(each).repeat(2), each.name) for each in constants]
        expected = model_of(21, node, {"x": shape}, later)
        feed = {"x": RNG.normal(size=shape).astype(np.float32)}
        (found,) = open_session(in_contract_opset(model, "model"))(feed).values()
        np.testing.assert_allclose(found, next(iter(ReferenceEvaluator(expected).run(None, feed))), atol=1e-5)
    else:
        assert_same(open_session, model)


@pytest.mark.parametrize(("mode", "align"), [("linear", 0), ("linear", 1), ("nearest", 0), ("cubic", 0)])
@pytest.mark.parametrize("opset", [20, 21])
def test_grid_sample(open_session, opset, mode, align):
    node = helper.make_node("GridSample", ["x", "g"], ["y"], mode=mode, align_corners=align, padding_mode="zeros")
    assert_same(open_session, model_of(opset, node, {"x": [1, 3, 8, 9], "g": [1, 4, 5, 2]}), 1e-4)


@pytest.mark.parametrize("opset", [20, 21])
def test_constant_of_shape_also_in_inner_graphs(open_session, opset):
    value = numpy_helper.from_array(np.array([2.5], np.float32))
    branches = {}
    for name, operator in (("then_branch", "Gelu"), ("else_branch", "Identity")):
        nodes = [
            helper.make_node("ConstantOfShape", ["shape"], [f"{name}/c"], value=value),
            helper.make_node(operator, [f"{name}/c"], [f"{name}/y"]),
        ]
        port = helper.make_tensor_value_info(f"{name}/y", TensorProto.FLOAT, [2, 3])
        branches[name] = helper.make_graph(nodes, name, [], [port])
    constants = [numpy_helper.from_array(np.array([2, 3]), "shape"), numpy_helper.from_array(np.array(True), "yes")]
    choice = helper.make_node("If", ["yes"], ["chosen"], **branches)
    model = model_of(opset, choice, {"x": [2, 3]}, constants)
    model.graph.node.append(helper.make_node("Add", ["chosen", "x"], ["y"]))
    assert_same(open_session, model)


@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize(("opset", "operator"), [(9, "Upsample"), (10, "Resize")])
def test_resizing_before_opset_11(open_session, opset, operator, mode):
    """Then the first cell of the coarse and of the fine grid had one centre."""
    scales = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "s")
    model = model_of(opset, helper.make_node(operator, ["x", "s"], ["y"], mode=mode), {"x": [1, 1, 1, 4]}, [scales])
    values = np.array([1, 3, 7, 4], np.float32).reshape(1, 1, 1, 4)
    (found,) = open_session(in_contract_opset(model, "model"))({"x": values}).values()
    expected = [1, 2, 3, 5, 7, 5.5, 4, 4] if mode == "linear" else [1, 1, 3, 3, 7, 7, 4, 4]
    np.testing.assert_allclose(found[0, 0, 0], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("opset", "operator", "attributes", "count"),
    [
        (23, "Attention", {}, 3),
        (23, "RMSNormalization", {"axis": -1}, 2),
        (24, "Swish", {"alpha": 1.5}, 1),
    ],
)
def test_operators_that_are_functions(open_session, opset, operator, attributes, count):
    shape = [1, 2, 4, 8] if operator != "RMSNormalization" else [8]
    shapes = dict(zip("xyz"[:count], ([1, 2, 4, 8], shape, shape), strict=False))
    shapes = {f"in_{name}": value for name, value in shapes.items()}
    assert_same(open_session, model_of(opset, helper.make_node(operator, [*shapes], ["y"], **attributes), shapes))


@pytest.mark.parametrize("operator", ["Resize", "Upsample"])
def test_samples_of_old_resizes(open_session, operator):
    """Until opset 10 sample i of the result lies at i / scale of the source."""
    scales = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")
    opset = 10 if operator == "Resize" else 9
    model = model_of(
        opset, helper.make_node(operator, ["x", "scales"], ["y"], mode="linear"), {"x": [1, 1, 3, 3]}, [scales]
    )
    x = RNG.normal(size=(1, 1, 3, 3)).astype(np.float32)
    (found,) = open_session(in_contract_opset(model, "model"))({"x": x}).values()
    np.testing.assert_allclose(found[..., ::2, ::2], x, atol=1e-6)
    np.testing.assert_allclose(found[..., 0, 1], x[..., 0, :2].mean(-1), atol=1e-6)


@pytest.mark.parametrize("opset", [9, 11])
@pytest.mark.parametrize("axis", [1, 3])
def test_softmax_of_several_axes_at_once(open_session, opset, axis):
    """Until opset 12 a softmax went over its axis and all behind it."""
    model = model_of(opset, helper.make_node("Softmax", ["x"], ["y"], axis=axis), {"x": [2, 3, 4, 5]})
    x = RNG.normal(size=(2, 3, 4, 5)).astype(np.float32)
    (found,) = open_session(in_contract_opset(model, "model"))({"x": x}).values()
    np.testing.assert_allclose(found.sum(tuple(range(axis, 4))), 1.0, atol=1e-5)


def test_what_has_no_older_form_is_named():
    node = helper.make_node("BitCast", ["x"], ["y"], name="odd", to=TensorProto.FLOAT)
    with pytest.raises(ModelError, match=r"opset 26 cannot be converted .*'odd'.* no operator BitCast"):
        in_contract_opset(model_of(26, node, {"x": [1, 2]}), "model")
    model = model_of(21, helper.make_node("Identity", ["x"], ["y"]), {"x": [1, 2]})
    model.opset_import[0].version = 99
    with pytest.raises(ModelError, match="knows opsets up to"):
        in_contract_opset(model, "model")
