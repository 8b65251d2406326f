"""What exporters write that needs more than reading: unsorted nodes, computed shapes, functions, suppression inside."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import onnx
import pytest
from colour_model import colour_model, random_scene
from onnx import TensorProto, helper, numpy_helper

from seg_perception.cli.main import main
from seg_perception.core.errors import UnknownFamilyError
from seg_perception.offboard.toolchain.export import Export, load_export
from seg_perception.offboard.toolchain.families import known_families, recognise
from seg_perception.offboard.toolchain.prepare import PrepareOptions, prepare


def save(model, folder):
    path = folder / "source.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def boxes_found(open_session, path, count):
    scene = random_scene(np.random.default_rng(1), 320, 192, count)
    outputs = open_session(onnx.load(path))({"images": scene.image[None]})
    return sorted(outputs["boxes"][0, :count].tolist()), sorted(scene.boxes.tolist())


def test_unsorted_nodes_are_sorted(open_session, tmp_path):
    """Converters to float16 leave their casts at the end of the list."""
    model = colour_model(float16=True)
    nodes = list(reversed(model.graph.node))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    with pytest.raises(onnx.checker.ValidationError, match="topologically sorted"):
        onnx.checker.check_model(model)
    prepare(save(model, tmp_path), tmp_path / "canonical.onnx")
    found, true = boxes_found(open_session, tmp_path / "canonical.onnx", 4)
    np.testing.assert_allclose(found, true, atol=0.25)


def test_sorted_nodes_stay_where_they_are(tmp_path):
    model = colour_model()
    before = [node.name for node in model.graph.node]
    assert [node.name for node in load_export(save(model, tmp_path)).model.graph.node] == before


@pytest.mark.parametrize("batch", [1, None])
def test_shapes_that_the_exporter_computes_with_nodes(batch):
    """The number of positions is a product of slices of the input's shape; ONNX's own inference leaves it open."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Slice", ["shape", "two", "four"], ["sizes"]),
        helper.make_node("ReduceProd", ["sizes"], ["area"], keepdims=1),
        helper.make_node("Slice", ["shape", "zero", "two"], ["first"]),
        helper.make_node("Concat", ["first", "area"], ["flat"], axis=0),
        helper.make_node("Reshape", ["x", "flat"], ["y"]),
    ]
    constants = [
        numpy_helper.from_array(np.array([value]), name) for value, name in ((0, "zero"), (2, "two"), (4, "four"))
    ]
    ports = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 4, 6]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None, None]),
    ]
    graph = helper.make_graph(nodes, "flat", ports[:1], ports[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert Export.of_model(model).outputs[0].shape == (batch, 3, 24)


def test_functions_of_the_model_are_written_out(open_session, tmp_path):
    """PyTorch's exporter writes modules as functions on request."""
    model = colour_model(opset=18)
    body = helper.make_function(
        "own", "Same", ["value"], ["result"], [helper.make_node("Identity", ["value"], ["result"])], model.opset_import
    )
    model.functions.append(body)
    model.opset_import.append(helper.make_opsetid("own", 1))
    last = next(node for node in model.graph.node if "output0" in node.output)
    last.output[0] = "inner"
    model.graph.node.append(helper.make_node("Same", ["inner"], ["output0"], domain="own"))
    prepare(save(model, tmp_path), tmp_path / "canonical.onnx")
    found, true = boxes_found(open_session, tmp_path / "canonical.onnx", 4)
    assert found == true


def test_a_gather_from_a_slice_runs_everywhere(open_session, tmp_path):
    """YOLO26's exports gather from a Slice that starts at 0, which OpenVINO 2026.4 does not compile."""
    model = import_module("layouts.yolo26").yolo26()
    graph = model.graph
    rows = next(node for node in graph.node if "rows" in node.output)
    rows.output[0] = "unsliced"
    for name, values in (("start", [0]), ("end", [38]), ("axis", [2])):
        graph.initializer.append(numpy_helper.from_array(np.array(values), name))
    order = np.tile(np.arange(60)[None, :, None], (1, 1, 38))
    graph.initializer.append(numpy_helper.from_array(order, "order"))
    graph.initializer.append(numpy_helper.from_array(np.zeros((1, 60, 2), np.float32), "more"))
    graph.node.extend(
        [
            helper.make_node("Concat", ["unsliced", "more"], ["wide"], axis=2),
            helper.make_node("Slice", ["wide", "start", "end", "axis"], ["part"]),
            helper.make_node("GatherElements", ["part", "order"], ["rows"], axis=1),
        ]
    )
    prepare(save(model, tmp_path), tmp_path / "canonical.onnx")
    found, true = boxes_found(open_session, tmp_path / "canonical.onnx", 4)
    assert found == true


def test_suppression_inside_is_refused_with_a_remedy():
    """As Ultralytics' `nms=True` has it: rows as of an end-to-end model, in shapes that depend on the image."""
    nodes = [
        helper.make_node("NonMaxSuppression", ["boxes", "scores", "most"], ["kept"]),
        helper.make_node("Cast", ["kept"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["numbers"], ["sum"], keepdims=0),
        helper.make_node("Expand", ["sum", "shape"], ["rows"]),
        helper.make_node("Identity", ["planes"], ["prototypes"]),
    ]
    arrays = {
        "boxes": np.zeros((1, 5, 4), np.float32),
        "scores": np.zeros((1, 1, 5), np.float32),
        "most": np.array(5),
        "shape": np.array([1, 300, 38]),
        "planes": np.zeros((1, 32, 16, 16), np.float32),
    }
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 64, 64])
    outputs = [
        helper.make_tensor_value_info("rows", TensorProto.FLOAT, [1, 300, 38]),
        helper.make_tensor_value_info("prototypes", TensorProto.FLOAT, [1, 32, 16, 16]),
    ]
    constants = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    model = helper.make_model(helper.make_graph(nodes, "nms", [image], outputs, constants))
    with pytest.raises(UnknownFamilyError, match=r"suppresses duplicates itself .* leave out nms=True"):
        recognise(Export.of_model(model))


@pytest.mark.parametrize("count", [1, 2])
def test_one_class_of_yolov5_is_not_taken_for_rows(open_session, tmp_path, count):
    """With one class, YOLOv5's columns are as many as those of end-to-end rows."""
    layout = import_module("layouts.yolov5")
    names = ("person", "car")[:count]
    path = save(layout.yolov5(names), tmp_path)
    assert prepare(path, tmp_path / "canonical.onnx").family == "yolov5"
    export = load_export(path)
    matches = {name: family.recognise(export) for name, family in known_families().items()}
    assert [name for name, match in matches.items() if match and not match.against] == ["yolov5"]


def test_yolov5_scores_are_products_and_raw_outputs_are_ignored(open_session, tmp_path):
    layout = import_module("layouts.yolov5")
    prepare(save(layout.yolov5(raw=True), tmp_path), tmp_path / "yolov5.onnx")
    (tmp_path / "dense.onnx").write_bytes(colour_model().SerializeToString())
    prepare(tmp_path / "dense.onnx", tmp_path / "yolov8.onnx")
    images = random_scene(np.random.default_rng(1), 320, 192, 4).image[None]
    ours, theirs = (
        open_session(onnx.load(tmp_path / f"{name}.onnx"))({"images": images}) for name in ("yolov5", "yolov8")
    )
    np.testing.assert_allclose(ours["scores"], theirs["scores"], atol=1e-6)


def test_names_of_end_to_end_models_decide_the_number_of_classes(tmp_path):
    model = import_module("layouts.yolo26").yolo26()
    path = save(model, tmp_path)
    assert len(prepare(path, tmp_path / "canonical.onnx").class_names) == 4
    del model.metadata_props[:]
    path = save(model, tmp_path)
    export = load_export(path)
    assert recognise(export)[1].class_count == 0
    with pytest.raises(Exception, match="give those of its classes with --classes"):
        prepare(path, tmp_path / "canonical.onnx", PrepareOptions())


def test_help_names_the_families(capsys):
    with pytest.raises(SystemExit):
        main(["prepare", "--help"])
    printed = capsys.readouterr().out
    assert all(name in printed for name in known_families())
