"""The emulation of float16 against NumPy's, and what it finds."""

from __future__ import annotations

import shlex

import cv2
import numpy as np
import onnx
import pytest
from colour_model import FAULT_COLOUR, colour_model, random_scene, save_colour_model
from onnx import TensorProto, helper, numpy_helper
from small_graphs import elements, model_of, node_called

from seg_perception.cli.main import main
from seg_perception.core.errors import NotCanonicalError
from seg_perception.offboard.toolchain.precision.emulate import HalfEmulator, HalfRangeError, check_range, emulated
from seg_perception.offboard.toolchain.precision.half import to_half
from seg_perception.offboard.toolchain.prepare import PrepareOptions, prepare
from seg_perception.onboard.backend.base import RunOptions
from seg_perception.onboard.backend.host.onnxruntime import OrtRunner

HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT
RNG = np.random.default_rng(0)


def session(model, level="ORT_ENABLE_BASIC"):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def half_chain(*steps):
    """A model float32 `x` -> float16 -> steps `(operator, constant)` -> float32 `y`."""
    nodes = [helper.make_node("Cast", ["x"], ["0"], name="in", to=HALF)]
    constants = {}
    for place, (kind, array) in enumerate(steps):
        constants[f"c{place}"] = np.asarray(array, np.float16)
        nodes.append(helper.make_node(kind, [str(place), f"c{place}"], [str(place + 1)], name=f"step {place}"))
    nodes.append(helper.make_node("Cast", [str(len(steps))], ["y"], name="out", to=FLOAT))
    return model_of(nodes, {"x": ["n"]}, {"y": 1}, constants)


@pytest.mark.parametrize("level", ["ORT_DISABLE_ALL", "ORT_ENABLE_BASIC"])
def test_every_result_is_rounded_as_numpy_rounds(level):
    model = half_chain(("Mul", 0.1), ("Add", 3.3), ("Div", 7.7), ("Sub", 0.4), ("Mul", 129.7))
    x = np.concatenate([RNG.uniform(-100, 100, 10000), RNG.uniform(-1e-6, 1e-6, 1000)]).astype(np.float32)
    expected = x.astype(np.float16)
    for step, constant in (
        (np.multiply, 0.1),
        (np.add, 3.3),
        (np.divide, 7.7),
        (np.subtract, 0.4),
        (np.multiply, 129.7),
    ):
        expected = step(expected, np.float16(constant))
    assert expected.dtype == np.float16
    rounding, places = emulated(model)
    assert [place.node for place in places] == ["in", *(f"step {number}" for number in range(5))]
    (found,) = session(rounding, level).run(None, {"x": x})
    np.testing.assert_array_equal(found, expected.astype(np.float32))
    # Once at the end is not the same.
    once = ((((x.astype(np.float16) * np.float32(0.1)) + 3.3) / 7.7) - 0.4) * 129.7
    assert (once.astype(np.float16) != expected).mean() > 0.2


def test_a_convolution_sums_in_float32_and_rounds_its_result():
    weights = RNG.normal(size=(5, 6, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="c", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["y"], name="r"),
    ]
    model = model_of(nodes, {"x": [1, 6, 9, 9]}, {"y": 4}, {"w": weights})
    x = RNG.normal(size=(1, 6, 9, 9)).astype(np.float32)
    rounding, places = emulated(to_half(model)[0])
    # What is exact needs no rounding.
    assert [place.operator for place in places] == ["Cast", "Conv"]
    (found,) = session(rounding).run(None, {"x": x})
    exact = model_of(nodes, {"x": [1, 6, 9, 9]}, {"y": 4}, {"w": weights.astype(np.float16).astype(np.float32)})
    (sums,) = session(exact, "ORT_DISABLE_ALL").run(None, {"x": x.astype(np.float16).astype(np.float32)})
    np.testing.assert_array_equal(found, sums.astype(np.float16).astype(np.float32))


def test_outputs_keep_names_and_types():
    model = half_chain(("Mul", 2))
    del model.graph.node[-1]
    model.graph.node[-1].output[0] = "y"
    model.graph.output[0].type.tensor_type.elem_type = HALF
    rounding, _ = emulated(model)
    assert elements(rounding)["y"] == HALF
    (found,) = session(rounding).run(None, {"x": np.float32([1.0009765625 + 2**-12, 30000])})
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, np.float16([2.001953125, 60000]))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The canonical colour model in float16, as a file and in memory."""
    folder = tmp_path_factory.mktemp("model")
    prepare(save_colour_model(folder / "raw.onnx"), folder / "half.onnx", PrepareOptions(precision="fp16"))
    return folder / "half.onnx", onnx.load(folder / "half.onnx")


def scene(seed=5):
    drawn = random_scene(np.random.default_rng(seed), 320, 192, 6, grid=4)
    return drawn, np.ascontiguousarray(drawn.image[None])


def test_the_emulated_colour_model_finds_the_rectangles(prepared):
    drawn, images = scene()
    emulator = HalfEmulator(prepared[1], threads=2)
    outputs = emulator.run(np.concatenate([images, images]))  # the model takes one at a time
    assert outputs.masks.dtype == np.float16
    for batch in range(2):
        used = outputs.scores[batch] > 0.5
        order = np.lexsort(outputs.boxes[batch][used].T)
        expected = np.lexsort(drawn.boxes.T)
        np.testing.assert_allclose(outputs.boxes[batch][used][order], drawn.boxes[expected], atol=0.01)
        np.testing.assert_array_equal(outputs.labels[batch][used][order], drawn.labels[expected])
    assert emulator.identity["precision"] == "float16, emulated"
    emulator.close()
    with pytest.raises(RuntimeError, match="closed"):
        emulator.run(images)


def canonical(tmp_path, change, **options):
    """The canonical colour model in float16, with the raw export changed by `change(graph)`."""
    model = colour_model(**options)
    change(model.graph)
    (tmp_path / "raw.onnx").write_bytes(model.SerializeToString())
    prepare(tmp_path / "raw.onnx", tmp_path / "half.onnx", PrepareOptions(precision="fp16"))
    return onnx.load(tmp_path / "half.onnx")


def insert_before_last(graph, *nodes, **constants):
    """Put nodes from tensor `@in` to `@out` before the node that makes `output1`, the prototypes."""
    last = graph.node[-1]
    assert last.output[0] == "output1"
    for node in nodes:
        for field in (node.input, node.output):
            for place, name in enumerate(field):
                field[place] = last.input[0] if name == "@in" else name
    last.input[0] = "@out"
    for node in nodes:
        graph.node.insert(len(graph.node) - 1, node)
    graph.initializer.extend(numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items())


def test_a_value_beyond_float16_names_its_layer(tmp_path):
    def grow(graph):
        # Logits are within +-16; a later layer brings them back, so that float32 is fine.
        insert_before_last(
            graph,
            helper.make_node("Mul", ["@in", "big"], ["large"], name="explode"),
            helper.make_node("Mul", ["large", "small"], ["@out"], name="calm"),
            big=np.float32(10000),
            small=np.float32(0.0001),
        )

    model = canonical(tmp_path, grow)
    with pytest.raises(
        HalfRangeError, match=r"layer 'explode' \(Mul\): its output 'large' reaches .*--keep-float32 explode"
    ) as caught:
        HalfEmulator(model).run(scene()[1])
    error = caught.value
    assert (error.node, error.operator, error.tensor) == ("explode", "Mul", "large")
    assert 65504 < abs(error.value) <= 80000
    prepare(tmp_path / "raw.onnx", tmp_path / "kept.onnx", PrepareOptions(precision="fp16", keep_float32=("explode",)))
    outputs = HalfEmulator(onnx.load(tmp_path / "kept.onnx")).run(scene()[1])
    assert (outputs.scores > 0.5).sum() == len(scene()[0].labels)


def test_nan_names_its_layer(tmp_path):
    _, images = scene()
    model = canonical(tmp_path, lambda graph: None, fault="prototypes")
    emulator = HalfEmulator(model)
    emulator.run(images)
    images[0, 5, 5] = FAULT_COLOUR
    with pytest.raises(HalfRangeError, match="is NaN") as caught:
        emulator.run(images)
    assert np.isnan(caught.value.value)


def test_infinities_of_the_network_itself_are_no_fault(tmp_path):
    def mask(graph):
        insert_before_last(
            graph,
            helper.make_node("Sigmoid", ["@in"], ["likely"], name="likely"),
            helper.make_node("Greater", ["likely", "half"], ["inside"], name="inside"),
            helper.make_node("Where", ["inside", "@in", "infinite"], ["masked"], name="mask"),
            helper.make_node("HardSigmoid", ["masked"], ["bounded"], name="sum"),
            helper.make_node("Add", ["masked", "half"], ["still infinite"], name="add"),
            helper.make_node("Max", ["still infinite", "bounded"], ["@out"], name="finite again"),
            half=np.float32(0.5),
            infinite=np.float32(-np.inf),
        )

    model = canonical(tmp_path, mask)
    assert any(node.name == "add" and node.op_type == "Add" for node in model.graph.node)
    outputs = HalfEmulator(model).run(scene()[1])
    assert np.isfinite(outputs.masks).all()


def test_onnxruntime_runs_quantized_float16_as_the_graph_says(tmp_path):
    # For its integer kernels ONNX Runtime would quantize the bias, in float16: it divides 8 by 1 / 127^2.
    def quantize(graph):
        insert_before_last(
            graph,
            helper.make_node("Mul", ["@in", "small"], ["even"], name="even"),
            helper.make_node("QuantizeLinear", ["even", "scale", "zero"], ["steps"], name="steps"),
            helper.make_node("DequantizeLinear", ["steps", "scale", "zero"], ["stepped"], name="stepped"),
            helper.make_node("DequantizeLinear", ["weights", "fine", "zeros"], ["dequantized"], name="weights", axis=0),
            helper.make_node("Conv", ["stepped", "dequantized", "bias"], ["mixed"], name="mixed"),
            helper.make_node("QuantizeLinear", ["mixed", "coarse", "zero"], ["last"], name="last"),
            helper.make_node("DequantizeLinear", ["last", "coarse", "zero"], ["done"], name="done"),
            helper.make_node("Mul", ["done", "large"], ["@out"], name="restored"),
            small=np.float32(1 / 16),
            scale=np.float32(1 / 127),
            zero=np.int8(0),
            weights=(127 * np.eye(32, dtype=np.int8)).reshape(32, 32, 1, 1),
            fine=np.full(32, 1 / 127, np.float32),
            zeros=np.zeros(32, np.int8),
            bias=np.full(32, 8, np.float32),
            coarse=np.float32(10 / 127),
            large=np.float32(16),
        )

    model = canonical(tmp_path, quantize)
    assert node_called(model, "mixed").op_type == "Conv"
    _, images = scene()
    expected = HalfEmulator(model).run(images)
    used = expected.scores > 0.5
    found = OrtRunner(tmp_path / "half.onnx", RunOptions()).run(images)
    assert np.abs(expected.masks[used]).max() > 5
    step = 16 * 10 / 127
    np.testing.assert_allclose(found.masks[used], expected.masks[used], atol=1.01 * step)


def test_only_canonical_models_are_run():
    with pytest.raises(NotCanonicalError):
        HalfEmulator(half_chain(("Mul", 2)))


def test_prepare_checks_the_range_on_images(tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    for seed in range(3):
        cv2.imwrite(str(images / f"{seed}.png"), scene(seed)[0].image[..., ::-1])
    model = colour_model()
    insert_before_last(
        model.graph, helper.make_node("Mul", ["@in", "big"], ["@out"], name="explode"), big=np.float32(10000)
    )
    (tmp_path / "bad.onnx").write_bytes(model.SerializeToString())
    source, target = save_colour_model(tmp_path / "good.onnx"), tmp_path / "half.onnx"
    options = ["-o", str(target), "--precision", "fp16", "--check", str(images)]
    assert main(["prepare", str(tmp_path / "bad.onnx"), *options]) != 0
    assert "layer 'explode' (Mul)" in capsys.readouterr().err
    assert not target.exists()
    assert main(["prepare", str(source), *options]) == 0
    assert "checked    3 frames with float16 rounding" in capsys.readouterr().out
    assert main(["inspect", str(target)]) == 0
    assert "float16 " in next(line for line in capsys.readouterr().out.splitlines() if line.startswith("precision"))
    assert check_range(onnx.load(target), onnx.load(target), []) == 0


@pytest.fixture
def white(tmp_path):
    """An image for which a model with a fault makes NaN."""
    image = scene()[0].image.copy()
    image[100:110, 100:110] = FAULT_COLOUR
    cv2.imwrite(str(tmp_path / "white.png"), image)
    return tmp_path / "white.png"


@pytest.mark.parametrize("fault", ["predictions", "prototypes"])
def test_what_is_broken_in_float32_too_is_not_blamed_on_float16(tmp_path, white, capsys, fault):
    source = save_colour_model(tmp_path / "raw.onnx", fault=fault)
    target = tmp_path / "half.onnx"
    assert main(["prepare", str(source), "-o", str(target), "--precision", "fp16", "--check", str(white)]) == 1
    said = capsys.readouterr().err
    assert "error: white: the model itself gives NaN or infinity for this frame, in float32 as well" in said
    assert "--keep-float32" not in said
    assert not target.exists()


def test_the_layers_named_are_those_to_keep(tmp_path, white, capsys):
    """Layers that take a tensor beyond float16: the Cast before them has no name that a user could give."""
    model = colour_model()
    insert_before_last(
        model.graph,
        helper.make_node("Mul", ["@in", "big"], ["large"], name="explode"),
        helper.make_node("Transpose", ["large"], ["turned"], name="turn", perm=[0, 1, 3, 2]),
        helper.make_node("Transpose", ["turned"], ["back"], name="turn back", perm=[0, 1, 3, 2]),
        helper.make_node("Conv", ["back", "weights"], ["@out"], name="calm"),
        big=np.float32(10000),
        weights=(np.eye(32, dtype=np.float32) / 10000).reshape(32, 32, 1, 1),
    )
    (tmp_path / "raw.onnx").write_bytes(model.SerializeToString())
    target = tmp_path / "half.onnx"
    command = ["prepare", str(tmp_path / "raw.onnx"), "-o", str(target), "--precision", "fp16", "--check", str(white)]
    command += ["--keep-float32", "explode"]
    assert main(command) == 1
    said = capsys.readouterr().err
    assert "white: layer 'turn' (Transpose): its input 'large' reaches" in said
    remedy = shlex.split(said[said.index("(--keep-float32") + 1 : said.index("), or use")])
    assert remedy[1::2] == ["turn", "turn back", "calm"]
    assert main([*command, *remedy]) == 0
    assert "checked    1 frames" in capsys.readouterr().out
