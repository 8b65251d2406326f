"""Q/DQ pairs: where they stand, what their scales are, and that the emulation computes what the graph says."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from conv_model import FLOAT_LAYERS, INT8_LAYERS, save_canonical_conv_model
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from seg_perception.offboard.toolchain.precision.half import to_half
from seg_perception.offboard.toolchain.quantize.emulation import exact_session
from seg_perception.offboard.toolchain.quantize.insert import Scales, insert, observed_tensors, quantized_tensors
from seg_perception.offboard.toolchain.quantize.layers import Layer, Network
from seg_perception.offboard.toolchain.quantize.ranges import METHODS, MIN_MAX, calibrate
from seg_perception.offboard.toolchain.quantize.scales import (
    SMALLEST,
    activation_scales,
    quantized_weight,
    representable,
    weight_scales,
)

SIZE = {"width": 96, "height": 64}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Network:
    return Network(onnx.load(save_canonical_conv_model(tmp_path_factory.mktemp("net") / "model.onnx", **SIZE)))


def quantizable(network: Network) -> list[Layer]:
    return [layer for layer in network.layers if not layer.kept]


def scales_of(network: Network, limit: float = 4.0) -> Scales:
    layers = quantizable(network)
    weights = {
        (layer.weight, layer.axis): weight_scales(numpy_helper.to_array(network.weights[layer.weight]), layer.axis)
        for layer in layers
    }
    return Scales(dict.fromkeys(observed_tensors(network, layers), limit), weights)


def graph_of(
    nodes: list[onnx.NodeProto], weights: dict[str, NDArray[Any]], shape: list[int], result: list[int] | None = None
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, result)],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def conv(name: str, source: str, operator: str = "Conv") -> onnx.NodeProto:
    return helper.make_node(operator, [source, f"{name}.w"], [f"{name}.y"], name=name)


def ones(*names: str, shape: tuple[int, ...] = (16, 16, 1, 1)) -> dict[str, NDArray[np.float32]]:
    return {f"{name}.w": np.ones(shape, np.float32) for name in names}


def test_layers_that_int8_suits_and_those_that_it_does_not(network: Network):
    reasons = {layer.name: layer.kept for layer in network.layers}
    assert {name for name, reason in reasons.items() if not reason} == set(INT8_LAYERS)
    assert {name: reasons[name] for name in FLOAT_LAYERS} == {
        "stem": "fewer than 16 channels",
        "wide": "last before the head",
        "narrow": "fewer than 16 channels",
    }


def test_pairs_stand_at_the_inputs_of_layers_and_at_the_skip_of_the_residual_sum(network: Network):
    model = insert(network, quantizable(network), scales_of(network))
    makers = {name: node for node in model.graph.node for name in node.output}
    readers = {node.name for node in model.graph.node for name in node.input if _is_pair(makers.get(name))}
    assert readers == {*INT8_LAYERS, "residual"}
    for node in model.graph.node:
        if node.name in INT8_LAYERS:
            assert all(_is_pair(makers[name]) for name in node.input[:2])
            assert all(name.endswith("bias") for name in node.input[2:])
    residual = next(node for node in model.graph.node if node.name == "residual")
    assert [_is_pair(makers[name]) for name in residual.input] == [True, False]
    zeros = [tensor for tensor in model.graph.initializer if tensor.name.endswith(("zero", "zeros"))]
    assert zeros
    for tensor in zeros:
        assert tensor.name == "zero" or (
            tensor.data_type == TensorProto.INT8 and not numpy_helper.to_array(tensor).any()
        )


def _is_pair(node: onnx.NodeProto | None) -> bool:
    return node is not None and node.op_type == "DequantizeLinear"


def test_weights_have_a_scale_for_each_output_channel(network: Network):
    model = insert(network, quantizable(network), scales_of(network))
    axes = {
        node.name: (next(item.i for item in node.attribute if item.name == "axis"), node.input[1])
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.attribute
    }
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert axes["quantize/first.weight/0/DQ"][0] == 0
    assert axes["quantize/up.weight/1/DQ"][0] == 1
    for axis, scale in axes.values():
        weight = values[scale.replace("scales", "int8")]
        assert weight.dtype == np.int8
        assert values[scale].shape == (weight.shape[axis],)


def test_tensors_that_meet_in_a_concatenation_share_a_scale():
    nodes = [
        conv("a", "x"),
        conv("b", "a.y"),
        helper.make_node("MaxPool", ["b.y"], ["pooled"], kernel_shape=[1, 1]),
        helper.make_node("Concat", ["a.y", "pooled"], ["met"], axis=1),
        helper.make_node("Conv", ["met", "c.w"], ["c.y"], name="c"),
        conv("d", "b.y"),
        helper.make_node("Add", ["c.y", "d.y"], ["sum"]),
        conv("last", "sum"),
        helper.make_node("Relu", ["last.y"], ["y"], name="head/relu"),
    ]
    weights = {**ones("a", "b", "d", "last"), "c.w": np.ones((16, 32, 1, 1), np.float32)}
    network = Network(graph_of(nodes, weights, [1, 16, 4, 4]))
    tensors = quantized_tensors(network, quantizable(network))
    groups = network.shared_scales(tensors)
    assert groups["a.y"] == groups["b.y"] == groups["met"]
    assert groups["x"] != groups["met"]
    scales = activation_scales({**dict.fromkeys(tensors, 1.0), "b.y": 5.0}, groups)
    assert scales["a.y"] == scales["met"] == pytest.approx(5.0 / 127, rel=1e-3)
    assert scales["x"] == pytest.approx(1.0 / 127, rel=1e-3)


def test_of_two_convolutions_that_are_summed_the_later_one_is_fused():
    nodes = [
        conv("short", "x"),
        conv("a", "x"),
        helper.make_node("Sigmoid", ["a.y"], ["gate"]),
        helper.make_node("Mul", ["a.y", "gate"], ["silu"]),
        helper.make_node("Add", ["silu", "short.y"], ["sum"]),
        conv("last", "sum"),
        helper.make_node("Relu", ["last.y"], ["y"], name="head/relu"),
    ]
    network = Network(graph_of(nodes, ones("short", "a", "last"), [1, 16, 4, 4]))
    assert network.residual_skips(["short.y", "a.y"]) == (("sum", 1),)
    assert network.residual_skips(["a.y"]) == (("sum", 1),)
    # The sum is fused with the later one or with none: which input is the skip does not depend on what is quantized.
    assert network.residual_skips(["short.y"]) == ()
    assert network.residual_skips(()) == ()


def silu(source: str, target: str) -> list[onnx.NodeProto]:
    gate = f"{target}.gate"
    return [helper.make_node("Sigmoid", [source], [gate]), helper.make_node("Mul", [source, gate], [target])]


def in_front_of_a_head(nodes: list[onnx.NodeProto], weights: dict[str, NDArray[Any]], source: str) -> Network:
    """The network of a graph whose last layer, 16 channels of `source`, stays in float."""
    nodes = [
        helper.make_node("Relu", ["x"], ["image"]),
        *nodes,
        conv("last", source),
        helper.make_node("Relu", ["last.y"], ["y"], name="head/relu"),
    ]
    return Network(graph_of(nodes, {**weights, **ones("last")}, [1, 16, 4, 4], [1, 16, 4, 4]))


def csp_block(depth: int = 2, nested: bool = False) -> Network:
    """A C3 block: bottlenecks with SiLU and a sum on one branch; nested, such a block inside (C3k)."""
    nodes, names, source = [conv("cv1", "image"), *silu("cv1.y", "t0")], ["cv1"], "t0"
    for place in range(depth):
        first, second, target = f"m{place}.cv1", f"m{place}.cv2", f"t{place + 1}"
        nodes += [conv(first, source), *silu(f"{first}.y", f"{first}.s")]
        nodes += [conv(second, f"{first}.s"), *silu(f"{second}.y", f"{second}.s")]
        nodes.append(helper.make_node("Add", [source, f"{second}.s"], [target], name=f"sum{place}"))
        names, source = [*names, first, second], target
    nodes += [
        conv("cv2", "image"),
        *silu("cv2.y", "short"),
        helper.make_node("Concat", [source, "short"], ["met"], axis=1),
    ]
    nodes += [conv("cv3", "met"), *silu("cv3.y", "out")]
    if nested:
        nodes.append(helper.make_node("Add", ["t0", "out"], ["outer"], name="outer"))
    weights = {**ones(*names, "cv2"), "cv3.w": np.ones((16, 32, 1, 1), np.float32)}
    return in_front_of_a_head(nodes, weights, "outer" if nested else "out")


def inverted_residuals() -> Network:
    """MobileNetV2: expansion, depthwise convolution and projection without activation, the projections summed."""
    nodes, weights, source = [conv("stem", "image")], ones("stem"), "stem.y"
    for block in range(3):
        expand, depthwise, project = (f"{kind}{block}" for kind in ("expand", "depthwise", "project"))
        nodes += [
            conv(expand, source),
            helper.make_node("Clip", [f"{expand}.y", "low", "high"], [f"{expand}.a"]),
            helper.make_node("Conv", [f"{expand}.a", f"{depthwise}.w"], [f"{depthwise}.y"], name=depthwise, group=32),
            helper.make_node("Clip", [f"{depthwise}.y", "low", "high"], [f"{depthwise}.a"]),
            conv(project, f"{depthwise}.a"),
            helper.make_node("Add", [f"{project}.y", source], [f"sum{block}"], name=f"sum{block}"),
        ]
        weights |= {
            f"{expand}.w": np.ones((32, 16, 1, 1), np.float32),
            f"{depthwise}.w": np.ones((32, 1, 1, 1), np.float32),
            f"{project}.w": np.ones((16, 32, 1, 1), np.float32),
        }
        source = f"sum{block}"
    weights |= {"low": np.array(0, np.float32), "high": np.array(6, np.float32)}
    return in_front_of_a_head(nodes, weights, source)


RESIDUAL_NETWORKS = {
    "C3": csp_block(),
    "C3k": csp_block(depth=1, nested=True),
    "inverted residuals": inverted_residuals(),
}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("C3", {"m0.cv2.y": (("t1", 0),), "m1.cv2.y": (("t2", 0),)}),
        ("C3k", {"m0.cv2.y": (("t1", 0),), "cv3.y": (("outer", 0),)}),
        ("inverted residuals", {f"project{block}.y": ((f"sum{block}", 1),) for block in range(3)}),
    ],
)
def test_the_skip_of_a_residual_sum_is_its_shorter_branch(name: str, expected: dict[str, Any]):
    assert RESIDUAL_NETWORKS[name].skips == expected


@pytest.mark.parametrize("name", RESIDUAL_NETWORKS)
@given(data=st.data())
def test_any_subset_of_layers_can_be_quantized(name: str, data: st.DataObject):
    network = RESIDUAL_NETWORKS[name]
    layers = quantizable(network)
    subset = data.draw(st.lists(st.sampled_from(layers), unique_by=lambda layer: layer.name))
    subset.sort(key=layers.index)
    model = insert(network, subset, scales_of(network))
    makers = {output: node for node in model.graph.node for output in node.output}
    fused = {layer.output for layer in subset}
    for main, sums in network.skips.items():
        for total, place in sums:
            assert _is_pair(makers.get(makers[total].input[place])) == (main in fused)
    for layer in layers:
        assert _is_pair(makers.get(makers[layer.output].input[0])) == (layer in subset)
    exact_session(to_half(model)[0])


def test_a_sum_of_a_convolution_with_itself_has_no_skip():
    nodes = [conv("a", "image"), *silu("a.y", "s"), helper.make_node("Add", ["s", "a.y"], ["sum"])]
    assert in_front_of_a_head(nodes, ones("a"), "sum").skips == {}


def test_concatenations_of_concatenations_are_looked_at_once():
    """As in DenseNet: the number of paths doubles with each layer."""
    nodes, source = [conv("a", "image")], "a.y"
    for place in range(60):
        nodes.append(helper.make_node("Concat", [source, source], [f"wide{place}"], axis=1))
        nodes.append(helper.make_node("Slice", [f"wide{place}", "zero", "sixteen", "one"], [f"t{place}"]))
        source = f"t{place}"
    nodes.append(conv("b", source))
    constants = {"zero": np.array([0]), "sixteen": np.array([16]), "one": np.array([1])}
    network = in_front_of_a_head(nodes, {**ones("a", "b"), **constants}, "b.y")
    assert len(set(network.shared_scales(["a.y", source]).values())) == 1


def test_the_upsampling_of_prototypes_stays_in_float_and_that_of_a_decoder_does_not():
    def upsampling(joined: bool) -> str:
        nodes = [
            helper.make_node("ConvTranspose", ["x", "up.w"], ["up.y"], name="up", strides=[2, 2]),
            *([helper.make_node("Concat", ["up.y", "up.y"], ["met"], axis=1)] if joined else []),
            helper.make_node("Conv", ["met" if joined else "up.y", "a.w"], ["a.y"], name="a"),
            conv("last", "a.y"),
            helper.make_node("Relu", ["last.y"], ["y"], name="head/relu"),
        ]
        weights = {
            **ones("last"),
            **ones("up", shape=(16, 16, 2, 2)),
            **ones("a", shape=(16, 32 if joined else 16, 1, 1)),
        }
        return Network(graph_of(nodes, weights, [1, 16, 4, 4])).layers[0].kept

    assert upsampling(joined=False) == "upsampling of the prototypes"
    assert upsampling(joined=True) == ""


def _kept(nodes: list[onnx.NodeProto], weights: dict[str, NDArray[Any]], channels: int = 16) -> dict[str, str]:
    network = Network(graph_of(nodes, weights, [1, channels, 8, 8]))
    return {layer.name: layer.kept for layer in network.layers}


def test_a_slim_decoder_does_not_make_the_encoder_in_front_of_it_a_head():
    slim = ones("slim", "deep", shape=(10, 16, 1, 1)) | {"deep.w": np.ones((10, 10, 3, 3), np.float32)}
    nodes = [
        conv("a", "x"),
        conv("b", "a.y"),
        conv("slim", "b.y"),
        helper.make_node("AveragePool", ["slim.y"], ["pooled"], kernel_shape=[3, 3]),
        conv("deep", "pooled"),
        conv("last", "deep.y"),
        helper.make_node("Relu", ["last.y"], ["y"], name="head/relu"),
    ]
    kept = _kept(nodes, {**ones("a", "b"), **slim, **ones("last", shape=(21, 10, 1, 1))})
    assert (kept["a"], kept["b"]) == ("", "")
    assert set(kept.values()) == {"", "fewer than 16 channels"}


def test_a_narrow_layer_of_an_encoder_does_not_make_its_skip_a_head():
    # As the image that ESPNet feeds in at every level, through convolutions of three channels.
    nodes = [
        conv("a", "x"),
        conv("image", "x"),
        conv("again", "image.y"),
        helper.make_node("Add", ["a.y", "again.y"], ["sum"]),
        conv("b", "sum"),
        conv("last", "b.y"),
        helper.make_node("Relu", ["last.y"], ["y"], name="head/relu"),
    ]
    weights = ones("a", "b", "last") | ones("image", shape=(3, 16, 1, 1)) | ones("again", shape=(16, 3, 1, 1))
    kept = _kept(nodes, weights)
    assert {name for name, reason in kept.items() if reason == "last before the head"} == {"last"}
    assert (kept["a"], kept["b"]) == ("", "")


def test_the_layer_before_a_few_channels_of_a_head_is_a_last_one():
    # Sides of boxes, and the expectation of a distribution over them.
    box = [conv("a", "x"), conv("wide", "a.y"), conv("sides", "wide.y")]
    softmax = helper.make_node("Softmax", ["wide.y"], ["shares"], axis=1)
    head = helper.make_node("Relu", ["sides.y"], ["y"], name="head/relu")
    weights = ones("a", "wide") | ones("sides", shape=(4, 16, 1, 1))
    expected = {"a": "", "wide": "last before the head", "sides": "fewer than 16 channels"}
    assert _kept([*box, head], weights) == expected
    expectation = [*box[:2], softmax, conv("sides", "shares"), head]
    assert _kept(expectation, weights | ones("sides", shape=(1, 16, 1, 1))) == expected


@pytest.mark.parametrize(("operator", "groups", "shape", "depthwise"), [
    ("Conv", 16, (16, 1, 3, 3), True),
    ("Conv", 16, (32, 1, 3, 3), True),
    ("Conv", 4, (16, 4, 3, 3), False),
    ("Conv", 1, (16, 16, 3, 3), False),
    ("ConvTranspose", 16, (16, 1, 2, 2), True),
    ("ConvTranspose", 1, (16, 16, 2, 2), False),
])  # fmt: skip
def test_depthwise_convolutions_are_known(operator: str, groups: int, shape: tuple[int, ...], depthwise: bool):
    node = helper.make_node(operator, ["x", "a.w"], ["a.y"], name="a", group=groups)
    network = Network(graph_of([node], ones("a", shape=shape), [1, 16, 8, 8]))
    assert [layer.depthwise for layer in network.layers] == [depthwise]


def test_products_with_weights_are_layers_and_those_of_activations_are_not():
    nodes = [
        helper.make_node("MatMul", ["x", "a.w"], ["a.y"], name="a"),
        helper.make_node("Gemm", ["a.y", "b.w"], ["b.y"], name="b", transB=1),
        helper.make_node("MatMul", ["b.y", "b.y"], ["square"], name="square"),
        helper.make_node("MatMul", ["square", "last.w"], ["last.y"], name="last"),
        helper.make_node("Relu", ["last.y"], ["y"], name="head/relu"),
    ]
    network = Network(graph_of(nodes, ones("a", "b", "last", shape=(16, 16)), [16, 16]))
    assert [(layer.name, layer.axis, layer.kept) for layer in network.layers] == [
        ("a", 1, ""),
        ("b", 0, ""),
        ("last", 1, "last before the head"),
    ]


@given(
    arrays.arrays(np.float32, (3, 4, 2), elements=st.floats(-8, 8, width=32)),
    st.integers(0, 2),
)
def test_weights_come_back_to_half_a_step_unless_clipping_is_better(weight: NDArray[np.float32], axis: int):
    scales = weight_scales(weight, axis)
    np.testing.assert_array_equal(scales.astype(np.float16), scales)
    shape = [-1 if place == axis else 1 for place in range(3)]
    whole = quantized_weight(weight, scales, axis)
    assert np.abs(whole.astype(int)).max() <= 127
    rows = tuple(each for each in range(3) if each != axis)
    error = np.square(whole * scales.reshape(shape) - weight).sum(axis=rows)
    plain = representable(np.abs(weight).max(axis=rows) / 127)
    naive = np.clip(np.rint(weight / plain.reshape(shape)), -127, 127) * plain.reshape(shape)
    assert (error <= np.square(naive - weight).sum(axis=rows) + 1e-6).all()


def test_scales_never_vanish_in_float16():
    assert representable(np.zeros(3)).tolist() == [SMALLEST] * 3


def test_ranges_are_those_of_the_frames(network: Network):
    tensors = quantized_tensors(network, quantizable(network))
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, (1, SIZE["height"], SIZE["width"], 3), np.uint8) for _ in range(5)]
    found = calibrate(network, tensors, images)
    assert set(found) == set(METHODS)
    probe = onnx.ModelProto()
    probe.CopyFrom(network.model)
    probe.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in tensors)
    session = exact_session(probe)
    for name in tensors:
        largest = max(float(np.abs(session.run([name], {"images": image})[0]).max()) for image in images)
        assert found[MIN_MAX][name] == pytest.approx(largest)
        for method in METHODS:
            assert 0 < found[method][name] <= largest * 1.001, method
    assert all(found["percentile 99.99"][name] <= found["percentile 99.999"][name] for name in tensors)


@pytest.mark.parametrize("half", [False, True])
def test_the_emulation_is_exact(half: bool):
    """Against NumPy: ties to even, saturation at both ends, no fused kernel that rounds elsewhere."""
    step, weight_step = np.float32(0.25), np.array([0.5, 0.125], np.float32)
    rng = np.random.default_rng(2)
    # Multiples of half a step: every second one is a tie. Some are far beyond what INT8 holds.
    x = (rng.integers(-400, 400, (1, 4, 5, 5)) * 0.125).astype(np.float32)
    whole = rng.integers(-127, 128, (2, 4, 1, 1)).astype(np.int8)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["v"], axis=0),
        helper.make_node("Conv", ["d", "v"], ["y"], name="conv"),
    ]
    weights = {"s": step, "z": np.int8(0), "w": whole, "ws": weight_step, "wz": np.zeros(2, np.int8)}
    model = graph_of(nodes, {name: np.asarray(value) for name, value in weights.items()}, [1, 4, 5, 5], [1, 2, 5, 5])
    if half:
        model, _ = to_half(model)
    quantized = np.clip(np.rint(x / step), -128, 127) * step
    assert (np.abs(x) > 32).any()
    expected = np.einsum("oc,bchw->bohw", (whole[:, :, 0, 0] * weight_step[:, None]), quantized)
    result = exact_session(model).run(None, {"x": x})[0]
    # What stands in float16 may be rounded to it or not, here as in TensorRT's fused kernels.
    np.testing.assert_allclose(result, expected, rtol=2.0**-11 if half else 0)


def test_tensorrt_builds_an_engine_of_it(network: Network):
    trt = pytest.importorskip("tensorrt_rtx", reason="needs the Python package tensorrt-rtx-cu12")
    model, _ = to_half(insert(network, quantizable(network), scales_of(network)))
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    definition = builder.create_network(0)
    parser = trt.OnnxParser(definition, logger)
    assert parser.parse(model.SerializeToString()), [str(parser.get_error(i)) for i in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    assert builder.build_serialized_network(definition, config).nbytes > 0
