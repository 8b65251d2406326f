"""What tells apart exports whose shapes are the same, and what is taken for granted where nothing does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from seg_perception.cli.main import main
from seg_perception.core.contract import READING_KEY
from seg_perception.core.errors import ConfigurationError, UnknownFamilyError
from seg_perception.offboard.toolchain.evidence import are_shares, own_scaling
from seg_perception.offboard.toolchain.export import Export, metadata_of
from seg_perception.offboard.toolchain.families import recognise
from seg_perception.offboard.toolchain.inputs import metadata_size, with_usual_input
from seg_perception.offboard.toolchain.prepare import PrepareOptions, prepare

Arrays = dict[str, NDArray[Any]]
QUERIES = 20


def fixed(
    outputs: Arrays,
    image: tuple[Any, ...] = (1, 3, 192, 320),
    metadata: dict[str, str] | None = None,
    element: int = TensorProto.FLOAT,
    first: list[onnx.NodeProto] | None = None,
    constants: Arrays | None = None,
) -> onnx.ModelProto:
    """A model that gives the same outputs whatever it sees; `first` turns the input `x` into `inner`."""
    arrays = {"zero": np.float32(0), **{f"{name}/c": array for name, array in outputs.items()}, **(constants or {})}
    nodes = [*(first or [helper.make_node("Cast", ["x"], ["inner"], to=TensorProto.FLOAT)])]
    nodes += [helper.make_node("ReduceMean", ["inner"], ["mean"], keepdims=0)]
    nodes += [helper.make_node("Mul", ["mean", "zero"], ["nothing"])]
    ports = []
    for name, array in outputs.items():
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        nodes.append(helper.make_node("Cast", ["nothing"], [f"{name}/0"], to=kind))
        nodes.append(helper.make_node("Add", [f"{name}/c", f"{name}/0"], [name]))
        ports.append(helper.make_tensor_value_info(name, kind, array.shape))
    graph = helper.make_graph(
        nodes,
        "fixed",
        [helper.make_tensor_value_info("x", element, image)],
        ports,
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, metadata or {})
    return model


def queries(names: tuple[str, str, str], columns: int, last: float = -6.0) -> Arrays:
    logits = np.full((1, QUERIES, columns), -6, np.float32)
    logits[..., -1] = last
    boxes = np.full((1, QUERIES, 4), 0.5, np.float32)
    masks = np.full((1, QUERIES, 48, 80), -6, np.float32)
    return dict(zip(names, (boxes, logits, masks), strict=True))


def named(count: int) -> dict[str, str]:
    return {"names": repr({index: f"thing {index}" for index in range(count)})}


def family_of(model: onnx.ModelProto, forced: str = "") -> str:
    export, _ = with_usual_input(Export.of_model(model), None, None)
    return recognise(export, forced)[0].name


ANY = ("a", "b", "c")


@pytest.mark.parametrize(
    ("names", "columns", "last", "metadata", "family"),
    [
        (("dets", "labels", "masks"), 5, -6.0, {}, "rfdetr"),
        (("boxes", "logits", "masks"), 5, -6.0, {}, "dfine"),
        (("boxes", "scores", "masks"), 5, -6.0, {}, "dfine"),
        (ANY, 5, -6.0, {"model_family": "deim"}, "dfine"),
        (ANY, 5, -6.0, {"model_family": "rfdetr"}, "rfdetr"),
        (("pred_boxes", "pred_logits", "pred_masks"), 5, 10.0, named(4), "detr"),
        (ANY, 5, 10.0, {}, "detr"),
        # A spare column and sigmoids: no other family has one column more than classes, with nothing below it.
        (ANY, 5, -6.0, named(4), "rfdetr"),
    ],
)
def test_names_metadata_and_a_run_tell_transformers_apart(names, columns, last, metadata, family):
    assert family_of(fixed(queries(names, columns, last), metadata=metadata)) == family


def test_where_two_readings_fit_both_are_named_and_the_option_that_decides():
    model = fixed(queries(ANY, 5), metadata=named(5))
    with pytest.raises(UnknownFamilyError, match="choose one with --family") as caught:
        family_of(model)
    for words in ("dfine: ", "rfdetr: ", "RGB / 255", "less 123.675 116.28 103.53", "a sigmoid each"):
        assert words in str(caught.value)
    assert family_of(model, "dfine") == "dfine"


def test_an_activation_in_the_graph_is_not_applied_twice(tmp_path: Path):
    model = fixed(queries(("dets", "raw", "masks"), 4, 2.0), metadata={**named(4), "model_family": "rfdetr"})
    model.graph.node.append(helper.make_node("Sigmoid", ["raw"], ["labels"]))
    model.graph.output[1].name = "labels"
    onnx.save(model, tmp_path / "s.onnx")
    prepare(tmp_path / "s.onnx", tmp_path / "m.onnx")
    import onnxruntime

    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    scores = session.run(["scores"], {"images": np.zeros((1, 192, 320, 3), np.uint8)})[0]
    assert scores.max() == pytest.approx(1 / (1 + np.exp(-2)), abs=1e-5)


def dense(rows: int, positions: int, coefficients: int, grid: int) -> Arrays:
    predictions = np.zeros((1, rows, positions), np.float32)
    return {"one": predictions, "two": np.zeros((1, coefficients, grid, grid), np.float32)}


@pytest.mark.parametrize(
    ("side", "classes", "named_classes", "family"),
    [
        (416, 4585, True, "yolov8"),  # YOLOE, prompt-free
        (224, 1203, True, "yolov8"),  # LVIS
        (64, 80, False, "yolov8"),  # only the positions of 64 x 64 tell
        (640, 80, False, "yolov8"),
    ],
)
def test_more_classes_than_positions(side: int, classes: int, named_classes: bool, family: str):
    positions = sum((side // stride) ** 2 for stride in (8, 16, 32))
    outputs = dense(4 + classes + 32, positions, 32, side // 4)
    model = fixed(outputs, (1, 3, side, side), named(classes) if named_classes else {})
    assert family_of(model) == family
    transposed = {"one": np.zeros((1, 3 * positions, 5 + classes + 32), np.float32), "two": outputs["two"]}
    assert family_of(fixed(transposed, (1, 3, side, side))) == "yolov5"


def test_an_output_that_nobody_understands_is_not_dropped():
    """LibreYOLO's YOLOv9: predictions, prototypes and coefficients, of which two alone look like Mask2Former."""
    outputs = {
        "predictions": np.zeros((1, 84, 8400), np.float32),
        "proto": np.zeros((1, 32, 160, 160), np.float32),
        "mask_coeffs": np.zeros((1, 32, 8400), np.float32),
    }
    with pytest.raises(UnknownFamilyError, match="no known family"):
        family_of(fixed(outputs, (1, 3, 640, 640)))


def test_features_of_an_image_encoder_are_no_classes():
    with pytest.raises(UnknownFamilyError, match="256 channels, as of an image encoder"):
        family_of(fixed({"y": np.zeros((1, 256, 64, 64), np.float32)}, (1, 3, 1024, 1024)))


def rows(side: int, integers: Any = np.int64) -> Arrays:
    dets = np.zeros((1, 10, 5), np.float32)
    return {"dets": dets, "labels": np.zeros((1, 10), integers), "masks": np.zeros((1, 10, side, side), np.float32)}


@pytest.mark.parametrize(("side", "image", "family"), [
    (28, 320, "maskrcnn"), (14, 320, "maskrcnn"), (56, 640, "maskrcnn"), (320, 320, "rtmdet"),
])  # fmt: skip
def test_what_masks_span_shows_in_their_size(side: int, image: int, family: str):
    assert family_of(fixed(rows(side), (1, 3, image, image))) == family


def test_masks_that_may_span_image_or_boxes_are_a_question():
    model = fixed(rows(28), (1, 3, 224, 224))
    with pytest.raises(UnknownFamilyError, match=r"(?s)several.*maskrcnn.*over each box.*rtmdet.*over the whole image"):
        family_of(model)
    assert family_of(model, "rtmdet") == "rtmdet"


IMAGENET_STD, IMAGENET_MEAN = np.array([0.229, 0.224, 0.225]), np.array([0.485, 0.456, 0.406])


@pytest.mark.parametrize(
    ("subtract", "divide", "limit", "bgr"),
    [
        (IMAGENET_MEAN, IMAGENET_STD, 1, False),
        (255 * IMAGENET_MEAN, 255 * IMAGENET_STD, 255, False),
        (255 * IMAGENET_MEAN[::-1], 255 * IMAGENET_STD[::-1], 255, True),
        (0.0, 255.0, 255, None),
        (127.5, 127.5, 255, None),
        (255 * IMAGENET_MEAN[::-1], 1.0, 255, True),  # Caffe
        (0.0, 1.0, None, None),
        (0.0, 1 / 255, None, None),  # undoes a normalisation
    ],
)
def test_a_normalisation_in_the_graph_is_seen(subtract, divide, limit, bgr):
    shape = (1, 3, 1, 1) if np.ndim(subtract) else ()
    constants = {
        "s": np.reshape(subtract, shape).astype(np.float32),
        "d": np.reshape(np.broadcast_to(divide, np.shape(subtract)), shape).astype(np.float32),
    }
    first = [helper.make_node("Sub", ["x", "s"], ["less"]), helper.make_node("Div", ["less", "d"], ["inner"])]
    export = Export.of_model(fixed({"y": np.zeros((1, 2, 192, 320), np.float32)}, first=first, constants=constants))
    found = own_scaling(export, export.inputs[0])
    assert (found and found.limit, found and found.bgr) == (limit, bgr)


def test_such_a_model_is_not_normalised_twice(tmp_path: Path, capsys):
    constants = {"s": np.float32(127.5), "d": np.float32(127.5)}
    first = [helper.make_node("Sub", ["x", "s"], ["less"]), helper.make_node("Div", ["less", "d"], ["inner"])]
    model = fixed({"y": np.zeros((1, 2, 192, 320), np.float32)}, metadata=named(2), first=first, constants=constants)
    onnx.save(model, tmp_path / "s.onnx")
    assert main(["prepare", str(tmp_path / "s.onnx"), "-o", str(tmp_path / "m.onnx")]) == 0
    assert "pixels   RGB 0 to 255 (the graph does the rest by itself)" in capsys.readouterr().out
    reading = json.loads(metadata_of(onnx.load(tmp_path / "m.onnx"))[READING_KEY])
    assert reading["pixels"].startswith("RGB 0 to 255 ")
    assert main(["inspect", str(tmp_path / "m.onnx")]) == 0
    assert "pixels: RGB 0 to 255 (the graph does the rest by itself)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.linspace(4, 636, 50), False),
        (np.linspace(0.01, 0.99, 50), True),
        (np.zeros(50), None),
        (np.full(50, 0.9), None),
        (np.array([np.nan, 0.0, 1.0]), False),
    ],
)
def test_shares_are_told_from_pixels(values, expected):
    assert are_shares(values) is expected


def shares_model(path: Path) -> Path:
    """One confident box in the middle among positions all over the image, in shares."""
    predictions = np.zeros((1, 4 + 2 + 32, 1260), np.float32)
    predictions[0, :2] = np.linspace(0.01, 0.99, 1260)
    predictions[0, 2:4] = 0.05
    predictions[0, :5, 630] = (0.5, 0.5, 0.2, 0.4, 0.9)
    model = fixed({"p": predictions, "m": np.ones((1, 32, 48, 80), np.float32)}, metadata=named(2))
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(("option", "factor"), [("", (320, 192)), ("shares", (320, 192)), ("pixels", (1, 1))])
def test_boxes_as_shares_become_pixels(tmp_path: Path, option: str, factor: tuple[int, int]):
    import onnxruntime

    prepare(shares_model(tmp_path / "s.onnx"), tmp_path / "m.onnx", PrepareOptions(boxes=option))
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    boxes = session.run(["boxes"], {"images": np.zeros((1, 192, 320, 3), np.uint8)})[0][0, 0]
    expected = np.array([0.4, 0.3, 0.6, 0.7]) * np.array([*factor, *factor])
    np.testing.assert_allclose(boxes, expected, atol=1e-3)


def whole(classes: int, height: int, width: int, arg: bool) -> onnx.ModelProto:
    """As tf2onnx writes a network: uint8 `[1, H, W, 3]`; red cells are class 1, others class 0."""
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["f", "scale"], ["scaled"]),
        helper.make_node("Gather", ["scaled", "red"], ["level"], axis=3),
        helper.make_node("Concat", ["half", "level"], ["scores"], axis=3),
    ]
    ports = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, height, width, classes])]
    if arg:
        nodes.append(helper.make_node("ArgMax", ["scores"], ["classes"], axis=3, keepdims=0))
        ports = [helper.make_tensor_value_info("classes", TensorProto.INT64, [1, height, width])]
    constants = {
        "scale": np.float32(1 / 255),
        "red": np.array([0]),
        "half": np.full((1, height, width, 1), 0.5, np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "tf",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, height, width, 3])],
        ports,
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    helper.set_model_props(model, named(classes))
    return model


@pytest.mark.parametrize("arg", [False, True])
@pytest.mark.parametrize("element", [TensorProto.UINT8, TensorProto.FLOAT, TensorProto.FLOAT16])
def test_channels_last_and_other_elements(open_session, tmp_path: Path, arg: bool, element: int):
    model = whole(2, 12, 20, arg)
    model.graph.input[0].type.tensor_type.elem_type = element
    onnx.save(model, tmp_path / "s.onnx")
    spec = prepare(tmp_path / "s.onnx", tmp_path / "m.onnx")
    assert (spec.network_height, spec.network_width, spec.mask_height, spec.mask_width) == (12, 20, 12, 20)
    image = np.zeros((1, 12, 20, 3), np.uint8)
    image[0, :, 5:9, 0] = 200
    found = open_session(onnx.load(tmp_path / "m.onnx"))({"images": image})["class_map"]
    assert (found[0] == 1).sum() == 48
    assert (found[0, :, 5:9] == 1).all()


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("[384, 640]", (384, 640)),
        ("640", (640, 640)),
        ("(320, 320)", (320, 320)),
        ("[0, 640]", None),
        ("[640]", None),
        ("[True, True]", None),
        ("__import__('os')", None),
        ("", None),
        ("[640, 10000000]", None),
    ],
)
def test_the_size_in_the_metadata(text: str, size: tuple[int, int] | None):
    export = Export.of_model(fixed(dense(38, 84, 32, 16), metadata={"imgsz": text}))
    assert metadata_size(export) == size


def test_an_open_input_takes_the_size_in_the_metadata():
    model = fixed({"y": np.zeros((1, 2, 192, 320), np.float32)}, (1, 3, "h", "w"), {"imgsz": "[192, 320]"})
    export, notes = with_usual_input(Export.of_model(model), None, None)
    assert export.inputs[0].shape == (1, 3, 192, 320)
    assert any("192 x 320" in note and "imgsz" in note for note in notes)
    del model.metadata_props[:]
    with pytest.raises(ConfigurationError, match="choose them with --input-size"):
        with_usual_input(Export.of_model(model), None, None)


def batched(mixes: bool) -> Export:
    """A batch of 4 in a Reshape; `mixes` lets each image see the mean of all."""
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["flat"])]
    if mixes:
        nodes.append(helper.make_node("ReduceMean", ["flat"], ["mean"], keepdims=1))
        nodes.append(helper.make_node("Sub", ["flat", "mean"], ["y"]))
    else:
        nodes.append(helper.make_node("Relu", ["flat"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "batched",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 3, 64])],
        [numpy_helper.from_array(np.array([4, 3, 64]), "shape")],
    )
    return Export.of_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def test_a_fixed_batch_is_opened_where_each_image_is_computed_by_itself():
    export, notes = with_usual_input(batched(mixes=False), None, None)
    assert export.inputs[0].shape == (None, 3, 8, 8)
    assert notes == ("batch      4 in the export, opened",)
    export, _ = with_usual_input(batched(mixes=False), 1, None)
    assert export.inputs[0].shape == (1, 3, 8, 8)
    export, notes = with_usual_input(batched(mixes=False), 4, None)
    assert (export.inputs[0].shape, notes) == ((4, 3, 8, 8), ())


def test_a_batch_that_cannot_be_opened_is_said():
    export, notes = with_usual_input(batched(mixes=True), None, None)
    assert export.inputs[0].shape == (4, 3, 8, 8)
    assert "4 images are computed even for one" in notes[0]
    with pytest.raises(ConfigurationError, match=r"--batch: .* is fixed"):
        with_usual_input(batched(mixes=True), 1, None)
