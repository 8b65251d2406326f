"""The files of an ONNX model: which they are, which are refused, and that the model's digest covers them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from seg_perception.core.errors import ModelError
from seg_perception.core.manifest import file_sha256
from seg_perception.core.onnx_files import external_files, model_sha256
from seg_perception.offboard.fleet.models import file_digest
from seg_perception.offboard.toolchain.export import load_model

VALUES = np.arange(4, dtype=np.float32)
ENTRIES = {"location": "weights.bin", "offset": "0", "length": "16"}


def outside(entries: Mapping[str, str], tensor: onnx.TensorProto | None = None) -> onnx.TensorProto:
    """A tensor whose values are in another file."""
    tensor = tensor or numpy_helper.from_array(VALUES, "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def save(folder: Path, entries: Mapping[str, str] = ENTRIES, where: str = "initializer") -> Path:
    """A model that adds the values in another file to its input."""
    tensor = outside(entries)
    nodes, initializers = [helper.make_node("Add", ["x", "w"], ["y"])], []
    if where == "initializer":
        initializers = [tensor]
    elif where == "constant":
        nodes.insert(0, helper.make_node("Constant", [], ["w"], value=tensor))
    else:
        branch = helper.make_graph([helper.make_node("Identity", ["v"], ["v2"])], "branch", [], [], [tensor])
        branch.initializer[0].name = "v"
        branch.output.append(helper.make_tensor_value_info("v2", TensorProto.FLOAT, [4]))
        nodes.insert(0, helper.make_node("If", ["yes"], ["w"], then_branch=branch, else_branch=branch))
        initializers = [numpy_helper.from_array(np.array(True), "yes")]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inner = tmp_path / "model"
    inner.mkdir()
    for place in (tmp_path, inner):
        (place / "weights.bin").write_bytes(VALUES.tobytes())
    return inner


@pytest.mark.parametrize("where", ["initializer", "constant", "branch"])
def test_weights_are_found_wherever_they_are_used(folder: Path, where: str):
    assert external_files(save(folder, where=where)) == (folder / "weights.bin",)


def test_a_model_in_one_file_has_no_others_and_keeps_its_digest(folder: Path):
    path = folder / "model.onnx"
    node = helper.make_node("Constant", [], ["y"], value=numpy_helper.from_array(VALUES))
    onnx.save(helper.make_model(helper.make_graph([node], "g", [], [])), path)
    assert external_files(path) == ()
    assert model_sha256(path) == file_sha256(path) == file_digest(path)


@pytest.mark.parametrize("where", ["initializer", "constant", "branch"])
@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"location": "../weights.bin"}, "leads elsewhere"),
        ({"location": "/etc/hostname"}, "leads elsewhere"),
        ({"location": "link.bin"}, "a link that leads elsewhere"),
        ({"location": "pipe"}, "expected a regular file"),
        ({"location": "."}, "leads elsewhere"),
        ({"location": ""}, "expected the name of a file"),
        ({"location": None}, "expected the name of a file"),
        ({"location": "nothing.bin"}, "nothing.bin, which is not in its folder; copy that file"),
        ({"length": "20"}, "ends before the weights"),
        ({"offset": "4"}, "ends before the weights"),
        ({"offset": "-4"}, "is not a number"),
        ({"length": "many"}, "is not a number"),
        ({"length": "9" * 5000}, "is not a number"),
    ],
)
def test_weights_anywhere_else_are_one_clear_error(folder: Path, entries: dict[str, str], message: str, where: str):
    (folder / "link.bin").symlink_to(folder.parent / "weights.bin")
    os.mkfifo(folder / "pipe")
    entries = {key: value for key, value in {**ENTRIES, **entries}.items() if value is not None}
    path = save(folder, entries, where)
    for reader in (external_files, model_sha256, load_model, lambda path: load_model(path, weights=False)):
        with pytest.raises(ModelError, match=message) as caught:
            reader(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_backends_do_not_open_such_a_model(folder: Path, backend: str):
    from seg_perception.onboard.backend.registry import open_backend

    with pytest.raises(ModelError, match="leads elsewhere"):
        open_backend(save(folder, {**ENTRIES, "location": "../weights.bin"}), backend)


@pytest.mark.parametrize("digest", [model_sha256, file_digest, lambda path: load_model(path)[1]])
def test_a_digest_covers_the_weights(folder: Path, digest):
    path, weights = save(folder), folder / "weights.bin"
    before = digest(path)
    assert before == digest(path) != file_sha256(path)
    weights.write_bytes(bytes(16))
    os.utime(weights, ns=(1, 1))
    assert digest(path) != before


@given(data=st.data())
def test_damaged_bytes_are_an_error_of_the_package_or_none(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
):
    folder = tmp_path_factory.getbasetemp()
    (folder / "weights.bin").write_bytes(VALUES.tobytes())
    content = bytearray(save(folder).read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    (folder / "model.onnx").write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    for reader in (external_files, load_model):
        with contextlib.suppress(ModelError):
            reader(folder / "model.onnx")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 3\n", "pointer of Git LFS.*git lfs pull"),
        (b'\x20\x00\x00\x00{"description": "Ultralytics YOLO"}ftrt', "engine that Ultralytics wrote.*format=onnx"),
        (b"ftrt\x00\x00\x00\x00", "a TensorRT engine; .*export the model as ONNX"),
    ],
)
def test_files_that_are_taken_for_models_are_named(tmp_path: Path, content: bytes, message: str):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    for reader in (external_files, load_model):
        with pytest.raises(ModelError, match=message):
            reader(path)


def test_a_plugin_of_tensorrt_is_named(tmp_path: Path):
    node = helper.make_node("EfficientNMS_TRT", ["b", "s"], ["n", "boxes", "scores", "classes"], domain="TRT")
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8, 4]) for name in ("b", "s", "n")]
    model = helper.make_model(helper.make_graph([node], "g", ports[:2], ports[2:]))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"plug-in for suppression .EfficientNMS_TRT.*export the model without it"):
        load_model(tmp_path / "m.onnx")
