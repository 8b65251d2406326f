"""Graphs in float16: their types, what stays in float32, and what they compute."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from colour_model import colour_model, random_scene, save_colour_model
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from small_graphs import elements, floats, model_of, node_called

from seg_perception.core.contract import METADATA_KEY, OPSET
from seg_perception.core.errors import ConfigurationError, ModelError
from seg_perception.offboard.toolchain.graph import GraphBuilder
from seg_perception.offboard.toolchain.nms import kept_candidates, order_of, ranks
from seg_perception.offboard.toolchain.precision.emulate import emulated
from seg_perception.offboard.toolchain.precision.half import to_half
from seg_perception.offboard.toolchain.precision.rules import ASKED, NEIGHBOUR, NO_HALF, POSITION, SENSITIVE, STAGE
from seg_perception.offboard.toolchain.prepare import PrepareOptions, prepare

HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT
RNG = np.random.default_rng(0)


def random(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def node(kind, inputs, outputs=("y",), **attributes):
    return helper.make_node(kind, list(inputs), list(outputs), name=kind, **attributes)


def run(model, **feeds):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


# Each takes `x` float32 [1, 4, 8, 8] to `y`; between two convolutions, so that both sides want float16.
SIZE = np.array([1, 4, 8, 8], np.int64)
NO_SCALES = floats(0)
BRANCH = helper.make_graph(
    [node("Neg", ["x"], ["negative"])], "then", [], [helper.make_tensor_value_info("negative", FLOAT, [1, 4, 8, 8])]
)
OTHER = helper.make_graph(
    [node("Relu", ["x"], ["positive"])], "else", [], [helper.make_tensor_value_info("positive", FLOAT, [1, 4, 8, 8])]
)
CASES = {
    "add": ([node("Add", ["x", "c"])], {"c": random(4, 1, 1)}),
    "batch normalisation": (
        [node("BatchNormalization", ["x", "a", "b", "m", "v"])],
        {"a": random(4), "b": random(4), "m": random(4), "v": random(4) ** 2 + 1},
    ),
    "cast there and back": ([
            node("Cast", ["x"], ["i"], to=TensorProto.INT32),
            helper.make_node("Cast", ["i"], ["y"], name="back", to=FLOAT),
        ], {}),
    "clip": ([node("Clip", ["x", "low", "high"])], {"low": np.float32(-1), "high": np.float32(1)}),
    "clip without a lower bound": ([node("Clip", ["x", "", "high"])], {"high": np.float32(1)}),
    "concat and split": (
        [node("Concat", ["x", "c"], ["j"], axis=1), node("Split", ["j", "sizes"], ["y", "rest"], axis=1)],
        {"c": random(1, 2, 8, 8), "sizes": np.array([4, 2])},
    ),
    "constant node": ([node("Constant", [], ["c"], value_floats=[0.5]), node("Mul", ["x", "c"])], {}),
    "constant of shape": (
        [
            node("ConstantOfShape", ["s"], ["c"], value=numpy_helper.from_array(np.array([2], np.float32))),
            node("Mul", ["x", "c"]),
        ],
        {"s": SIZE},
    ),
    "constant of shape, default": ([node("ConstantOfShape", ["s"], ["c"]), node("Add", ["x", "c"])], {"s": SIZE}),
    "cumulative sum": ([node("CumSum", ["x", "a"])], {"a": np.int64(3)}),
    "depth to space": (
        [node("DepthToSpace", ["x"], ["d"], blocksize=2), node("SpaceToDepth", ["d"], blocksize=2)],
        {},
    ),
    "einsum": ([node("Einsum", ["x", "w"], equation="bchw,cd->bdhw")], {"w": random(4, 4)}),
    "expand": ([node("Expand", ["x", "s"])], {"s": SIZE}),
    "grid sample": ([node("GridSample", ["x", "g"])], {"g": RNG.uniform(-1, 1, (1, 8, 8, 2)).astype(np.float32)}),
    "group normalisation": ([node("InstanceNormalization", ["x", "a", "b"])], {"a": random(4), "b": random(4)}),
    "if": ([node("If", ["yes"], then_branch=BRANCH, else_branch=OTHER)], {"yes": np.array(True)}),
    "layer normalisation": (
        [node("LayerNormalization", ["x", "a", "b"], ["y", "mean", "deviation"])],
        {"a": random(8), "b": random(8)},
    ),
    "matrix product": ([node("MatMul", ["x", "w"])], {"w": random(8, 8)}),
    "mean": ([node("ReduceMean", ["x", "a"], ["m"]), node("Sub", ["x", "m"])], {"a": np.array([2, 3])}),
    "normalisation by hand": (
        [
            node("ReduceMean", ["x", "a"], ["m"]),
            node("Sub", ["x", "m"], ["d"]),
            node("Pow", ["d", "two"], ["s"]),
            helper.make_node("ReduceMean", ["s", "a"], ["v"], name="variance"),
            node("Add", ["v", "tiny"], ["e"]),
            node("Sqrt", ["e"], ["r"]),
            node("Div", ["d", "r"]),
        ],
        {"a": np.array([1, 2, 3]), "two": np.float32(2), "tiny": np.float32(1e-12)},
    ),
    "pad": ([node("Pad", ["x", "p", "v"], ["b"]), node("MaxPool", ["b"], kernel_shape=[3, 3])],
            {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "v": np.float32(-1)}),
    "power": ([node("Abs", ["x"], ["a"]), node("Pow", ["a", "p"])], {"p": np.float32(1.5)}),
    "quantize": (
        [node("QuantizeLinear", ["x", "s", "z"], ["q"]), node("DequantizeLinear", ["q", "s", "z"])],
        {"s": np.float32(0.02), "z": np.int8(0)},
    ),
    "range": (
        [node("Range", ["zero", "eight", "one"], ["r"]), node("Add", ["x", "r"])],
        {"zero": np.float32(0), "eight": np.float32(8), "one": np.float32(1)},
    ),
    "resize by scales": (
        [
            node("Resize", ["x", "roi", "s"], ["b"], mode="linear"),
            node("AveragePool", ["b"], kernel_shape=[2, 2], strides=[2, 2]),
        ],
        {"roi": NO_SCALES, "s": np.array([1, 1, 2, 2], np.float32)},
    ),
    "resize by sizes": ([node("Resize", ["x", "", "", "s"])], {"s": SIZE}),
    "resize to a computed size": (
        [
            node("Shape", ["x"], ["n"]),
            node("Cast", ["n"], ["f"], to=FLOAT),
            node("Mul", ["f", "k"], ["g"]),
            node("Floor", ["g"], ["h"]),
            helper.make_node("Cast", ["h"], ["s"], name="back", to=TensorProto.INT64),
            node("Resize", ["x", "", "", "s"]),
        ],
        {"k": np.float32(1.0)},
    ),
    "regions": (
        [node("RoiAlign", ["x", "r", "i"], output_height=8, output_width=8)],
        {"r": np.array([[1.2, 2.3, 6.4, 7.5]], np.float32), "i": np.array([0])},
    ),
    "softmax": ([node("Softmax", ["x"], axis=1)], {}),
    "transposed convolution": (
        [node("ConvTranspose", ["x", "w"], strides=[1, 1], pads=[1, 1, 1, 1])],
        {"w": random(4, 4, 3, 3)},
    ),
    "top": (
        [node("TopK", ["x", "k"], ["t", "i"]), node("GatherElements", ["t", "i"], axis=3)],
        {"k": np.array([8])},
    ),
    "where": (
        [node("Greater", ["x", "zero"], ["m"]), node("Where", ["m", "x", "low"], ["w"]), node("Softmax", ["w"])],
        {"zero": np.float32(0), "low": np.float32(-3e38)},
    ),
}  # fmt: skip


def chain(names):
    """A model that goes through the cases one after the other, a convolution before, between and behind."""
    nodes, constants = [], {}
    value = "images"
    for place, name in enumerate([*names, ""]):
        constants[f"{place}/weights"] = (random(4, 4, 1, 1) / 2).astype(np.float32)
        nodes.append(helper.make_node("Conv", [value, f"{place}/weights"], [f"{place}/x"], name=f"{place}/Conv"))
        value = f"{place}/x"
        if name:
            case, numbers = CASES[name]
            constants.update({f"{place}/{key}": array for key, array in numbers.items()})
            nodes.extend(renamed(each, f"{place}/") for each in case)
            value = f"{place}/y"
    return model_of(nodes, {"images": [1, 4, 8, 8]}, {value: 4}, constants)


def renamed(each, prefix):
    result = onnx.NodeProto()
    result.CopyFrom(each)
    result.name = prefix + each.name
    for field in (result.input, result.output):
        for place, name in enumerate(field):
            field[place] = prefix + name if name else ""
    for attribute in result.attribute:
        if attribute.HasField("g"):
            for inner in attribute.g.node:
                inner.input[0] = prefix + inner.input[0]
    return result


def assert_types_are_clean(model, half):
    kinds = elements(half)  # strict inference: it fails on a mixture
    convolutions = [each for each in half.graph.node if each.op_type == "Conv"]
    assert convolutions
    assert all(kinds[name] == HALF for each in convolutions for name in (*each.input, *each.output))
    before = {value.name: value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
    after = {value.name: value.type.tensor_type.elem_type for value in (*half.graph.input, *half.graph.output)}
    assert before == after
    casts = {each.output[0]: each.input[0] for each in half.graph.node if each.op_type == "Cast"}
    for source in casts.values():
        # There and back again is a loss for nothing.
        assert source not in casts or {kinds[source], kinds[casts[source]]} != {HALF, FLOAT}


@pytest.mark.parametrize("name", CASES)
def test_every_operator_is_type_correct_and_computes_the_same(name):
    model = chain([name])
    images = RNG.uniform(-1, 1, (1, 4, 8, 8)).astype(np.float32)
    half, _ = to_half(model)
    assert_types_are_clean(model, half)
    (expected,), (found,) = run(model, images=images), run(half, images=images)
    assert np.isfinite(expected).all()
    # A cast to integers and a quantization turn the last digit into a step.
    steps = {"cast there and back": 1.5, "quantize": 0.05}.get(name, 0.0)
    np.testing.assert_allclose(found, expected, rtol=1e-2, atol=2e-2 + steps)


@settings(max_examples=25, derandomize=True)
@given(st.lists(st.sampled_from(sorted(CASES)), min_size=2, max_size=5))
def test_types_fit_in_any_sequence(names):
    model = chain(names)
    assert_types_are_clean(model, to_half(model)[0])


def test_the_source_stays_as_it_is():
    model = chain(["add", "softmax"])
    before = model.SerializeToString()
    to_half(model)
    assert model.SerializeToString() == before


@pytest.mark.parametrize("last", ["Mul", "Transpose"])
def test_a_box_decoder_stays_in_float32(last):
    # x = (offset + column) * 8: in float16, positions near 640 would have steps of half a pixel.
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["c"], name="last"),
        helper.make_node("Sigmoid", ["c"], ["s"], name="offset"),
        helper.make_node("Reshape", ["s", "flat"], ["f"], name="flatten"),
        helper.make_node("Add", ["f", "columns"], ["p"], name="place"),
        helper.make_node("Mul", ["p", "eight"], ["x"], name="pixels"),
        # A head that computes with the boxes, and one that only moves them.
        helper.make_node(last, ["x", "one"] if last == "Mul" else ["x"], ["boxes"], name=f"head/{last}"),
    ]
    constants = {
        "w": random(1, 3, 1, 1),
        "flat": np.array([1, 80]),
        "columns": np.arange(80, dtype=np.float32)[None],
        "eight": np.float32(8),
        "one": np.float32(1),
    }
    model = model_of(nodes, {"images": [1, 3, 1, 80]}, {"boxes": 2}, constants)
    half, report = to_half(model)
    kept = {layer.name: layer.reason for layer in report.kept}
    decoder = {"offset": POSITION, "place": POSITION, "pixels": POSITION}
    assert kept == decoder | ({"head/Mul": STAGE} if last == "Mul" else {})
    assert elements(half)[node_called(half, "last").output[0]] == HALF
    images = RNG.uniform(-1, 1, (1, 3, 1, 80)).astype(np.float32)
    (expected,) = run(model, images=images)
    assert expected.max() > 600
    (found,) = run(emulated(half)[0], images=images)
    np.testing.assert_allclose(found, expected, atol=0.02)


def positions_model(kind):
    """A convolution whose result is scaled and then used as positions by an operator of this kind."""
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["c"], name="last"),
        helper.make_node("Tanh", ["c"], ["t"], name="bounded"),
        helper.make_node("Reshape", ["t", "shape"], ["r"], name="moved"),
        helper.make_node("Mul", ["r", "scale"], ["p"], name="positions"),
    ]
    constants = {"w": random(2, 3, 1, 1), "scale": np.float32(0.7)}
    if kind == "GridSample":
        constants["shape"] = np.array([1, 4, 4, 2])
        nodes.append(helper.make_node(kind, ["images", "p"], ["y"], name="reader"))
    elif kind == "RoiAlign":
        constants |= {"shape": np.array([8, 4]), "of": np.zeros(8, np.int64)}
        nodes.append(
            helper.make_node(kind, ["images", "p", "of"], ["y"], name="reader", output_height=2, output_width=2)
        )
    elif kind == "Cast":
        constants["shape"] = np.array([32])
        nodes += [
            helper.make_node(kind, ["p"], ["i"], name="reader", to=TensorProto.INT64),
            helper.make_node("Gather", ["images", "i"], ["y"], name="gather", axis=3),
        ]
    model = model_of(nodes, {"images": [1, 3, 4, 4]}, {"y": 4}, constants)
    model.graph.output[0].name = "masks"  # which is not traced back for its own sake
    for each in model.graph.node:
        each.output[0] = "masks" if each.output[0] == "y" else each.output[0]
    return model


@pytest.mark.parametrize("kind", ["GridSample", "RoiAlign", "Cast"])
def test_positions_and_indices_are_made_in_float32(kind):
    half, report = to_half(positions_model(kind))
    kept = {layer.name: layer.reason for layer in report.kept}
    assert kept["bounded"] == kept["positions"] == POSITION
    kinds = elements(half)
    assert kinds[node_called(half, "last").output[0]] == HALF
    reader = node_called(half, "reader")
    assert kinds[reader.input[0 if kind == "Cast" else 1]] == FLOAT


def test_masks_are_float16_where_they_are_products_or_picked():
    # Of two queries, one is picked; rows that are not used become empty.
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["c"], name="last"),
        helper.make_node("ReduceMax", ["c", "area"], ["likely"], name="head/Likely", keepdims=0),
        helper.make_node("TopK", ["likely", "one"], ["scores", "places"], name="head/Top"),
        helper.make_node("Greater", ["scores", "zero"], ["used"], name="head/Greater"),
        helper.make_node("Cast", ["used"], ["factor"], name="head/Used", to=FLOAT),
        helper.make_node("Unsqueeze", ["factor", "area"], ["wide"], name="head/Wide"),
        helper.make_node("Gather", ["c", "first"], ["picked"], name="head/Pick", axis=1),
        helper.make_node("Mul", ["picked", "wide"], ["masks"], name="head/Empty"),
    ]
    constants = {
        "w": random(2, 3, 1, 1),
        "area": np.array([2, 3]),
        "one": np.array([1]),
        "zero": np.float32(0),
        "first": np.array([0]),
    }
    model = model_of(nodes, {"images": [1, 3, 4, 4]}, {"masks": 4, "scores": 2}, constants)
    half, report = to_half(model)
    kinds = elements(half)
    assert (kinds["masks"], kinds["scores"]) == (HALF, FLOAT)
    assert {layer.name for layer in report.kept} == {"head/Top", "head/Greater", "head/Used"}
    images = RNG.uniform(-1, 1, (1, 3, 4, 4)).astype(np.float32)
    for expected, found in zip(run(model, images=images), run(emulated(half)[0], images=images), strict=True):
        np.testing.assert_allclose(found, expected, atol=5e-3)


def test_an_expectation_over_bins_is_part_of_the_decoder():
    # As Ultralytics writes the distribution focal loss: softmax over 16 bins, then a convolution with 0, 1, ..., 15.
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["c"], name="last"),
        helper.make_node("Softmax", ["c"], ["s"], name="bins", axis=1),
        helper.make_node("Conv", ["s", "numbers"], ["d"], name="expectation"),
        helper.make_node("Mul", ["d", "eight"], ["boxes"], name="head/Mul"),
    ]
    numbers = np.arange(16, dtype=np.float32).reshape(1, 16, 1, 1)
    constants = {"w": random(16, 3, 1, 1), "numbers": numbers, "eight": np.float32(8)}
    _, report = to_half(model_of(nodes, {"images": [1, 3, 4, 4]}, {"boxes": 4}, constants))
    assert {layer.name: layer.reason for layer in report.kept} == {
        "bins": SENSITIVE,
        "expectation": POSITION,
        "head/Mul": STAGE,
    }


def test_nodes_may_be_kept_by_name_and_by_predicate():
    model = chain(["add", "add"])
    by_name, report = to_half(model, keep=["1/Conv"])
    # What only adds a constant to it follows.
    assert [(layer.name, layer.reason) for layer in report.kept] == [("1/Conv", ASKED), ("1/Add", NEIGHBOUR)]
    kinds = elements(by_name)
    assert kinds[node_called(by_name, "1/Conv").output[0]] == FLOAT
    assert kinds[node_called(by_name, "0/Conv").output[0]] == HALF
    assert to_half(model, keep=lambda each: each.name == "1/Conv")[0] == by_name
    with pytest.raises(ModelError, match="none called 9/Conv"):
        to_half(model, keep=["9/Conv"])


def test_weights_beyond_float16_are_an_error_that_names_the_layer():
    model = chain(["add", "add"])
    weights = next(each for each in model.graph.initializer if each.name == "1/weights")
    weights.CopyFrom(numpy_helper.from_array(np.full((4, 4, 1, 1), 70000, np.float32), "1/weights"))
    with pytest.raises(ModelError, match=r"layer '1/Conv' \(Conv\).*'1/weights'.*7e\+04.*--keep-float32 1/Conv"):
        to_half(model)
    half, _ = to_half(model, keep=["1/Conv"])
    assert np.isfinite(run(half, images=floats(1, 4, 8, 8))[0]).all()


def test_weights_below_float16_are_noted():
    model = chain(["add"])
    weights = next(each for each in model.graph.initializer if each.name == "0/weights")
    array = random(4, 4, 1, 1)
    array[1:3] = 1e-6
    weights.CopyFrom(numpy_helper.from_array(array, "0/weights"))
    _, report = to_half(model)
    (note,) = report.notes
    assert note.startswith("layer '0/Conv' (Conv): all weights of 2 of its 4 channels ('0/weights') are below 6.1e-05")


def test_constants_that_float16_lacks_keep_their_operator():
    model = chain(["normalisation by hand"])
    _, report = to_half(model)
    kept = {layer.name for layer in report.kept}
    assert {f"0/{name}" for name in ("Add", "Sub", "Pow", "Sqrt", "Div", "variance")} <= kept
    # All of one row is equal: what remains of the variance is the tiny number alone.
    (found,) = run(to_half(model)[0], images=floats(1, 4, 8, 8))
    assert np.isfinite(found).all()


def test_graphs_within_nodes_read_float32():
    _, report = to_half(chain(["if"]))
    assert [(layer.operator, layer.reason) for layer in report.kept] == [("If", NO_HALF)]


def test_operators_of_other_domains_need_known_types():
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["c"], name="first"),
        helper.make_node("Odd", ["c"], ["o"], name="stranger", domain="com.example"),
        helper.make_node("Conv", ["o", "w"], ["y"], name="second"),
    ]
    shapes = {"images": [1, 4, 8, 8], "y": [1, 4, 8, 8]}
    ports = {name: helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in shapes.items()}
    weights = numpy_helper.from_array(random(4, 4, 1, 1), "w")
    graph = helper.make_graph(nodes, "odd", [ports["images"]], [ports["y"]], [weights])
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.example", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    with pytest.raises(ModelError, match=r"node 'stranger' \(com.example.Odd\): the types of its outputs"):
        to_half(model)
    graph.value_info.append(helper.make_tensor_value_info("o", FLOAT, [1, 4, 8, 8]))
    half, report = to_half(helper.make_model(graph, opset_imports=opsets, ir_version=9))
    assert [(layer.name, layer.reason) for layer in report.kept] == [("stranger", NO_HALF)]
    assert node_called(half, "second").input[0].endswith("/float16")


def test_scales_of_quantization_become_float16():
    model = chain(["quantize"])
    half, _ = to_half(model)
    kinds = elements(half)
    quantize, dequantize = (node_called(half, f"0/{name}Linear") for name in ("Quantize", "Dequantize"))
    for each in (quantize, dequantize):
        assert kinds[each.input[1]] == HALF
        assert kinds[each.input[2]] == TensorProto.INT8
    assert kinds[quantize.input[0]] == kinds[dequantize.output[0]] == HALF
    assert kinds[quantize.output[0]] == TensorProto.INT8
    assert not any(each.op_type == "Cast" for each in half.graph.node[1:-1])


def test_scales_that_float16_lacks_are_an_error():
    model = chain(["quantize"])
    next(each for each in model.graph.initializer if each.name == "0/s").CopyFrom(
        numpy_helper.from_array(np.float32(1e-9), "0/s")
    )
    with pytest.raises(ModelError, match=r"layer '0/QuantizeLinear'.*down to 1e-09.*at least 6.1e-05"):
        to_half(model)


def suppression_model(count, name="head"):
    graph = helper.make_graph(
        [],
        "nms",
        [
            helper.make_tensor_value_info("boxes", FLOAT, [1, 4, count]),
            helper.make_tensor_value_info("scores", FLOAT, [1, count]),
        ],
        [],
    )
    builder = GraphBuilder(graph, name)
    left, top, right, bottom = (side.reshape(0, count) for side in builder.value("boxes").split(1, 1, 1, 1, 1))
    before = order_of(builder.value("scores"), builder.constant(np.arange(count)).unsqueeze(0))
    labels = builder.constant(np.zeros((1, count)))
    keep = kept_candidates(builder, (left, top, right, bottom), labels, before, count, 0.5, 4)
    builder.publish(ranks(builder, before, count), "rank", np.float32, [1, count])
    builder.publish(keep, "keep", np.float32, [1, count])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)


@pytest.mark.parametrize("count", [50, 2048, 2500])
def test_sums_of_zeros_and_ones_are_float16_where_that_is_exact(count):
    model = suppression_model(count)
    half, _ = to_half(model)
    kinds = elements(half)
    products = [kinds[each.output[0]] for each in half.graph.node if each.op_type == "MatMul"]
    # The last one ranks: float16 cannot count further than 2048.
    assert products == [HALF] * 4 + [HALF if count <= 2048 else FLOAT]
    corner = RNG.uniform(0, 40, (1, 2, count))
    boxes = np.concatenate([corner, corner + RNG.uniform(10, 30, (1, 2, count))], 1).astype(np.float32)
    feeds = {"boxes": boxes, "scores": RNG.permutation(count)[None].astype(np.float32)}
    for expected, found in zip(run(model, **feeds), run(emulated(half)[0], **feeds), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("batch", [1, None])
def test_the_colour_model_finds_the_same_rectangles(tmp_path, open_session, batch):
    source = save_colour_model(tmp_path / "source.onnx", batch=batch)
    lines = []
    prepare(source, tmp_path / "float.onnx")
    prepare(source, tmp_path / "half.onnx", PrepareOptions(precision="fp16"), lines.append)
    assert any(line.startswith("precision  ") and "nodes in float16" in line for line in lines)
    model, half = onnx.load(tmp_path / "float.onnx"), onnx.load(tmp_path / "half.onnx")
    assert [item.value for item in half.metadata_props if item.key == METADATA_KEY] == [
        item.value for item in model.metadata_props if item.key == METADATA_KEY
    ]
    scene = random_scene(np.random.default_rng(5), 320, 192, 6, grid=4)
    feed = {"images": np.ascontiguousarray(scene.image[None])}
    expected, found = open_session(model)(feed), open_session(half)(feed)
    assert found["masks"].dtype == np.float16
    assert (expected["scores"] > 0.5).sum() == len(scene.labels)
    used = expected["scores"] > 0.5
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-3)
    np.testing.assert_array_equal(found["labels"][used], expected["labels"][used])
    np.testing.assert_allclose(found["boxes"][used], expected["boxes"][used], atol=0.01)
    np.testing.assert_array_equal(found["masks"][used] > 0, expected["masks"][used] > 0)


def test_a_float16_export_is_taken_too(tmp_path):
    model = colour_model(float16=True)
    (tmp_path / "source.onnx").write_bytes(model.SerializeToString())
    prepare(tmp_path / "source.onnx", tmp_path / "half.onnx", PrepareOptions(precision="fp16"))
    elements(onnx.load(tmp_path / "half.onnx"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"precision": "int8"}, "--precision: expected fp32 or fp16, got 'int8'"),
        ({"keep_float32": ("a",)}, "--keep-float32: expected together with --precision fp16"),
        ({"check": ("a",)}, "--check: expected together with --precision fp16"),
    ],
)
def test_impossible_options(values, message):
    with pytest.raises(ConfigurationError, match=message):
        PrepareOptions(**values)
