"""What `prepare` and `inspect` print."""

from __future__ import annotations

import argparse
import subprocess
import sys

import onnx
import pytest
from colour_model import save_canonical_colour_model, save_colour_model

from seg_perception.cli import inspect as inspect_command
from seg_perception.cli import prepare as prepare_command
from seg_perception.cli.main import main
from seg_perception.core.contract import ModelSpec
from seg_perception.core.errors import ClassTableError, ConfigurationError, ModelError


def call(command, *words):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(word) for word in words]))


def spec_of(path):
    import onnx

    return ModelSpec.from_metadata({item.key: item.value for item in onnx.load(path).metadata_props}, str(path))


def test_prepare_takes_its_options_and_says_what_it_did(tmp_path, capsys):
    source, target = save_colour_model(tmp_path / "a.onnx"), tmp_path / "b.onnx"
    options = ("--nms-iou", 0.5, "--max-instances", 30, "--nms-candidates", 200, "--nms-steps", 8)
    assert call(prepare_command, source, "-o", target, *options, "--family", "yolov8") == 0
    spec = spec_of(target)
    assert (spec.nms_iou, spec.max_instances, spec.nms_candidates, spec.nms_steps) == (0.5, 30, 200, 8)
    printed = capsys.readouterr().out
    assert "recognised yolov8: 4 classes, 960 positions, 32 prototypes of 80 x 48" in printed
    assert f"wrote      {target} (0.1 MB, source 0.0 MB) in " in printed


def test_prepare_with_a_class_table(tmp_path):
    source, target = save_colour_model(tmp_path / "a.onnx", names=None), tmp_path / "b.onnx"
    table = tmp_path / "mine.yaml"
    table.write_text("name: mine\nclasses: [walker, wagon, plate, lamp]\ngroups: {vehicle: [wagon]}\n")
    assert call(prepare_command, source, "-o", target, "--classes", table) == 0
    assert spec_of(target).class_names == ("walker", "wagon", "plate", "lamp")
    with pytest.raises(ClassTableError, match="80 names"):
        call(prepare_command, source, "-o", target, "--classes", "coco")
    with pytest.raises(ConfigurationError, match="got 'auto'"):
        call(prepare_command, source, "-o", target, "--classes", "auto")


@pytest.mark.parametrize("text", ["640", "x640", "0x640", "640x-1", "axb"])
def test_prepare_refuses_a_size_that_is_none(text, tmp_path):
    with pytest.raises(SystemExit):
        call(prepare_command, "a.onnx", "-o", tmp_path / "b.onnx", "--input-size", text)


def test_inspect_of_a_canonical_model_shows_spec_and_groups(tmp_path, capsys):
    model = save_canonical_colour_model(tmp_path / "model.onnx", batch=None)
    assert call(inspect_command, model) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == f"model {model} (canonical, contract 1)"
    for expected in (
        "family yolov8",
        "input uint8 [any batch, 192, 320, 3], RGB",
        "resize letterbox, padding 114, center, sizes rounded nearest",
        "masks 80 x 48 logits over the network input",
        "suppression IoU 0.6, best 960 candidates, 16 steps",
        "0 person pedestrian thing",
        "1 car vehicle thing",
        "2 stop sign traffic_sign thing",
        "3 traffic light traffic_light thing",
    ):
        assert expected in lines


def test_inspect_aligns_its_columns(tmp_path, capsys):
    model = save_canonical_colour_model(tmp_path / "model.onnx")
    call(inspect_command, model)
    lines = capsys.readouterr().out.splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("label"))
    column = lines[start].index("road group")
    assert [line[column:].split()[0] for line in lines[start + 1 : start + 5]] == [
        "pedestrian",
        "vehicle",
        "traffic_sign",
        "traffic_light",
    ]


def test_inspect_without_a_fitting_table_still_shows_the_classes(tmp_path, capsys):
    model = save_canonical_colour_model(tmp_path / "model.onnx", names=("zig", "zag"))
    assert call(inspect_command, model) == 0
    printed = capsys.readouterr().out
    assert "zag" in printed
    assert "road groups unknown: no class table knows any of the model's classes" in printed


def test_inspect_writes_a_class_table_to_edit(tmp_path, capsys):
    model = save_canonical_colour_model(tmp_path / "model.onnx", names=("car", "zag"))
    table = tmp_path / "mine.yaml"
    assert call(inspect_command, model, "--write-classes", table) == 0
    printed = capsys.readouterr().out
    assert "1 of 2 classes belong to none and are not published" in printed
    assert f"{table}: 2 classes, 1 in road groups; edit `groups`, then --classes {table}" in printed
    assert call(inspect_command, model, "--classes", table) == 0
    assert "road groups after class table 'mine'" in capsys.readouterr().out


def test_inspect_writes_no_table_without_names(tmp_path):
    source = save_colour_model(tmp_path / "raw.onnx", names=None)
    with pytest.raises(ConfigurationError, match="expected a model with class names"):
        call(inspect_command, source, "--write-classes", tmp_path / "mine.yaml")


def test_inspect_of_a_raw_export_says_what_is_missing(tmp_path, capsys):
    source = save_colour_model(tmp_path / "raw.onnx", names=None)
    assert call(inspect_command, source) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "yolov8: 4 classes" in printed
    assert "output 'output0' float [1, 40, 960]" in printed
    assert f"not canonical yet: run `seg_perception prepare {source} -o {tmp_path / 'raw.canonical.onnx'}`" in printed
    assert "with --classes TABLE.yaml" in printed


def test_inspect_of_no_model(tmp_path):
    with pytest.raises(ModelError, match="no such file"):
        call(inspect_command, tmp_path / "nothing.onnx")
    (tmp_path / "model.engine").write_bytes(b"engine")
    with pytest.raises(ModelError, match=r"expected its manifest model\.engine\.json next to it"):
        call(inspect_command, tmp_path / "model.engine")
    (tmp_path / "model").write_bytes(b"neither")
    with pytest.raises(ModelError, match=r"not an ONNX model"):
        call(inspect_command, tmp_path / "model")
    with pytest.raises(ConfigurationError, match=r"is a folder; expected a model file"):
        call(inspect_command, tmp_path)


def test_commands_import_without_onnx():
    code = (
        "import sys; sys.modules['onnx'] = None\n"
        "import seg_perception.cli.prepare as p, seg_perception.cli.inspect, argparse\n"
        "from seg_perception.core.errors import BackendUnavailable\n"
        "parser = argparse.ArgumentParser(); p.add_arguments(parser)\n"
        "try: p.run(parser.parse_args(['a.onnx', '-o', 'b.onnx']))\n"
        "except BackendUnavailable as error: print(error)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install onnx" in result.stdout


def test_inspect_says_which_layers_it_could_not_count(tmp_path, capsys):
    path = save_canonical_colour_model(tmp_path / "model.onnx")
    model = onnx.load(path)
    model.graph.node.extend(
        [
            onnx.helper.make_node("NonZero", [model.graph.input[0].name], ["places"]),
            onnx.helper.make_node("Cast", ["places"], ["numbers"], to=onnx.TensorProto.FLOAT),
            onnx.helper.make_node("Transpose", ["numbers"], ["rows"]),
            onnx.helper.make_node("MatMul", ["numbers", "rows"], ["y"], name="product"),
        ]
    )
    onnx.save(model, path)
    assert call(inspect_command, path) == 0
    assert "1 layer of unknown size is not counted: product" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ("quantize", "@folder", "--calibration", "@folder", "-o", "@folder/int8.onnx"),
        ("prepare", "@folder", "-o", "@folder/canonical.onnx"),
        ("verify", "@folder", "--reference", "@folder", "--data", "@images"),
        ("image", "--model", "@folder", "@images", "-o", "@folder/out"),
    ],
)
def test_a_folder_as_the_model_is_said_to_be_one(words, tmp_path, capsys):
    folder, images = tmp_path / "models", tmp_path / "images"
    for each in (folder, images):
        each.mkdir()
    (images / "image.png").write_bytes(b"never read")
    words = [word.replace("@folder", str(folder)).replace("@images", str(images)) for word in words]
    assert main(words) == 1
    assert f"{folder}: is a folder; expected " in capsys.readouterr().err


INTERRUPTED = """
import sys
from importlib.abc import MetaPathFinder

class Interrupted(MetaPathFinder):
    # As pybind11 reports a Ctrl-C while it initialises a module.
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            try:
                raise KeyboardInterrupt
            except KeyboardInterrupt as error:
                raise {error}("initialization failed") from error

sys.meta_path.insert(0, Interrupted())
from seg_perception.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("error", ["ImportError", "SystemError"])
@pytest.mark.parametrize("module", ["onnx", "onnxruntime", "openvino"])
def test_ctrl_c_during_imports_ends_with_130(module, error, tmp_path):
    model = save_canonical_colour_model(tmp_path / "model.onnx")
    command = {
        "onnx": ["prepare", str(model), "-o", str(tmp_path / "out.onnx")],
        "onnxruntime": ["quantize", str(model), "--calibration", str(tmp_path), "-o", str(tmp_path / "out.onnx")],
        # Another backend would open the model, too.
        "openvino": ["image", "--model", str(model), "-o", str(tmp_path / "out"), str(tmp_path / "image.png")],
    }[module]
    (tmp_path / "image.png").write_bytes(b"never read")
    code = INTERRUPTED.format(module=module, error=error)
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "")
