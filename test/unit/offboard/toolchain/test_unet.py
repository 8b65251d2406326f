"""Class scores per pixel become class maps, however the export ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from colour_model import FAULT_COLOUR, NAMES, random_scene
from layouts.unet import CLASSES, unet
from numpy.typing import NDArray
from runners import open_runner

from seg_perception.core.contract import FAULTY_CELL, NO_CLASS, ModelSpec
from seg_perception.core.errors import NotCanonicalError, UnknownFamilyError
from seg_perception.core.geometry import ResizeSpec
from seg_perception.offboard.toolchain.export import Export
from seg_perception.offboard.toolchain.families import recognise
from seg_perception.offboard.toolchain.families.unet import UNet
from seg_perception.offboard.toolchain.prepare import prepare

SCENE = random_scene(np.random.default_rng(1), 320, 192, 6, grid=8)


def class_map(folder: Path, model: onnx.ModelProto, images: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], ModelSpec]:
    onnx.save(model, folder / "raw.onnx")
    prepare(folder / "raw.onnx", folder / "canonical.onnx")
    runner = open_runner(folder / "canonical.onnx")
    found = runner.run(images).class_map.copy()
    runner.close()
    return found, runner.spec


@pytest.mark.parametrize(
    ("ending", "classes"),
    [
        ("", CLASSES),
        ("Softmax", CLASSES),
        ("ArgMax", CLASSES),
        ("Twice", CLASSES),
        ("Coarse", CLASSES),
        ("Sigmoid", NAMES),
        ("Binary", NAMES[1:2]),
    ],
)
def test_every_ending(ending: str, classes: tuple[str, ...], tmp_path: Path) -> None:
    found, spec = class_map(tmp_path, unet(ending=ending), SCENE.image[None])
    assert (spec.family, spec.class_names) == ("unet", classes)
    assert (spec.max_instances, spec.class_map) == (0, True)
    assert spec.things == tuple(name != "background" for name in classes)
    seen = ["background", *(NAMES[label] for label in SCENE.labels)]
    values = [classes.index(name) if name in classes else NO_CLASS for name in seen]
    step = 4 if ending == "Coarse" else 1
    truth = np.array(values)[SCENE.instance_map][step // 2 :: step, step // 2 :: step]
    assert found.dtype == np.uint8
    assert found.shape == (1, *truth.shape) == (1, spec.mask_height, spec.mask_width)
    assert set(np.unique(found)) == set(np.unique(truth))
    assert (found[0] == truth).mean() > 0.999


@pytest.mark.parametrize("ending", ["Softmax", "ArgMax"])
def test_what_only_hides_the_logits_is_cut_off(ending: str, tmp_path: Path) -> None:
    class_map(tmp_path, unet(ending=ending), SCENE.image[None])
    nodes = [node for node in onnx.load(tmp_path / "canonical.onnx").graph.node if not node.name.startswith("head/")]
    assert ending not in {node.op_type for node in nodes}


@pytest.mark.parametrize("ending", ["", "Sigmoid", "Binary", "Coarse"])
def test_a_fault_fills_the_map_of_its_image_only(ending: str, tmp_path: Path) -> None:
    broken = SCENE.image.copy()
    broken[:4, :4] = FAULT_COLOUR
    found, _ = class_map(tmp_path, unet(ending=ending, batch=None), np.stack([SCENE.image, broken]))
    assert (found[1] == FAULTY_CELL).all()
    assert (found[0] != FAULTY_CELL).all()


def recognised(model: onnx.ModelProto) -> bool:
    return UNet().recognise(Export.of_model(model)) is not None


def test_other_shapes_are_not_recognised() -> None:
    assert recognised(unet())
    unlike = unet(ending="Twice")
    unlike.graph.output[1].CopyFrom(
        onnx.helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, [1, 3, 192, 320])
    )
    assert not recognised(unlike)
    lonely = unet(ending="Twice")
    for node in lonely.graph.node:
        if node.output[0] == "auxiliary":
            node.op_type = "ArgMax"
            node.attribute.append(onnx.helper.make_attribute("axis", 2))
    del lonely.graph.output[0]
    lonely.graph.output[0].CopyFrom(
        onnx.helper.make_tensor_value_info("auxiliary", onnx.TensorProto.INT64, [1, 5, 1, 320])
    )
    assert not recognised(lonely)


def test_an_error_for_what_is_no_class_map(tmp_path: Path) -> None:
    model = unet(ending="Coarse")
    for node in model.graph.node:
        if node.output[0] == "logits":
            node.op_type = "Transpose"
            node.attribute.append(onnx.helper.make_attribute("perm", [0, 1, 3, 2]))
    model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [1, 5, 80, 48]))
    onnx.save(model, tmp_path / "raw.onnx")
    with pytest.raises(UnknownFamilyError, match=r"'logits' float \[1, 5, 80, 48\]"):
        prepare(tmp_path / "raw.onnx", tmp_path / "canonical.onnx")


def test_more_classes_than_a_class_map_can_hold() -> None:
    sizes = {"network_height": 8, "network_width": 8, "mask_height": 8, "mask_width": 8, "batch": 1}
    spec = {
        "family": "unet",
        "resize": ResizeSpec(),
        "max_instances": 0,
        "mask_frame": "frame",
        "class_map": True,
        **sizes,
    }
    ModelSpec(class_names=("x",) * 254, things=(True,) * 254, **spec)
    with pytest.raises(NotCanonicalError, match="at most 254 classes in its 8 bits, got 255"):
        ModelSpec(class_names=("x",) * 255, things=(True,) * 255, **spec)


def graph_of(nodes: list[onnx.NodeProto], outputs: dict[str, list[int]], image: list[int]) -> Export:
    """A model of some nodes that read `image`."""
    kind, value = onnx.TensorProto.FLOAT, onnx.helper.make_tensor_value_info
    weights = onnx.numpy_helper.from_array(np.zeros((80, image[1], 1, 1), np.float32), "weights")
    graph = onnx.helper.make_graph(
        nodes,
        "other",
        [value("image", kind, image)],
        [value(name, kind, shape) for name, shape in outputs.items()],
        [weights],
    )
    return Export.of_model(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]))


def node(kind: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return onnx.helper.make_node(kind, inputs.split(), [output], **attributes)


def test_a_detection_head_of_one_grid_is_not_taken_for_class_scores() -> None:
    # As FastestDet joins objectness, boxes and classes.
    nodes = [
        node("MaxPool", "image", "grid", kernel_shape=[4, 4], strides=[4, 4]),
        node("Sigmoid", "grid", "objects"),
        node("Conv", "grid weights", "boxes"),
        node("Softmax", "boxes", "classes", axis=1),
        node("Concat", "objects boxes classes", "output", axis=1),
    ]
    export = graph_of(nodes, {"output": [1, 163, 16, 16]}, [1, 3, 64, 64])
    with pytest.raises(UnknownFamilyError, match=r"end differently.*detection head"):
        recognise(export)
    family, match = recognise(export, "unet")
    assert (family.name, match.class_count) == ("unet", 163)


def test_coarse_cells_are_asked_about() -> None:
    # As YOLOv2 has 5 anchors with 20 classes, and image encoders their features.
    for stride in (32, 16, 8):
        pool = node("MaxPool", "image", "grid", kernel_shape=[stride, stride], strides=[stride, stride])
        nodes = [pool, node("Conv", "grid weights", "output")]
        export = graph_of(nodes, {"output": [1, 80, 128 // stride, 128 // stride]}, [1, 3, 128, 128])
        if stride == 8:
            assert recognise(export)[0].name == "unet"
        else:
            with pytest.raises(UnknownFamilyError, match=f"{stride} pixels high"):
                recognise(export)


def test_background_as_the_rest_of_the_object_is_one_ending() -> None:
    one = node("Constant", "", "one", value=onnx.numpy_helper.from_array(np.ones(1, np.float32)))
    one.ClearField("input")
    nodes = [
        one,
        node("Sigmoid", "image", "object"),
        node("Sub", "one object", "background"),
        node("Concat", "background object", "output", axis=1),
    ]
    assert recognise(graph_of(nodes, {"output": [1, 6, 64, 64]}, [1, 3, 64, 64]))[0].name == "unet"


@pytest.mark.parametrize(("names", "asked"), [
    (("out", "aux"), False), (("d0", "d1", "d2"), False), (("1959", "1960"), False), (("output", "output_1"), False),
    (("output", "aux_output"), False), (("lanes", "segmentation"), True), (("drivable", "lane_line"), True),
])  # fmt: skip
def test_outputs_of_several_tasks_are_asked_about(names: tuple[str, ...], asked: bool) -> None:
    nodes = [node("Identity", "image", name) for name in names]
    export = graph_of(nodes, {name: [1, 3, 64, 64] for name in names}, [1, 3, 64, 64])
    if asked:
        with pytest.raises(UnknownFamilyError, match=f"names of their own .{', '.join(names)}"):
            recognise(export)
    else:
        assert recognise(export)[0].name == "unet"
    assert recognise(export, "unet")[1].outputs


@pytest.mark.parametrize(("image", "remedy"), [
    ([1, 4, 64, 64], "no three channels"), ([1, 1, 64, 64], "no three channels"), ([1, 100], "input of images"),
])  # fmt: skip
def test_inputs_that_are_no_images_of_a_camera_are_named(image: list[int], remedy: str) -> None:
    export = graph_of([node("Identity", "image", "output")], {"output": image}, image)
    # At the beginning, as long messages are cut.
    with pytest.raises(UnknownFamilyError, match=rf"^model: no known family recognises this model; [^\n]*{remedy}"):
        recognise(export)


def test_suppression_in_a_file_of_its_own_is_named() -> None:
    model = graph_of([node("Add", "image config", "output")], {"output": [1, 84, 100]}, [1, 84, 100]).model
    model.graph.input.append(onnx.helper.make_tensor_value_info("config", onnx.TensorProto.FLOAT, [1]))
    with pytest.raises(UnknownFamilyError, match="before or after the network"):
        recognise(Export.of_model(model))
