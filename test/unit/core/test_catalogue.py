"""The catalogue of models by name, and what its names stand for."""

from __future__ import annotations

import json
import re
from importlib import import_module
from pathlib import Path

import pytest

from seg_perception.cli.main import main
from seg_perception.core.catalogue import (
    ONNX,
    PERMISSIVE,
    SHIPPED,
    CatalogueEntry,
    Checksum,
    catalogue,
    load_catalogue,
    models_folder,
)
from seg_perception.core.class_tables import class_table_directory
from seg_perception.core.errors import ConfigurationError
from seg_perception.core.share import find_model, share_directory

ENTRIES = list(catalogue().entries.values())
GOOD = """
recipes:
  own: {packages: torch, how: "export {file} as {variant}"}
groups:
  - shared: {family: yolov8, task: instances, classes: coco, data: COCO, code_licence: MIT, weights_licence: MIT}
    models:
      one-seg:
        input: 384x640
        urls: [https://example.org/one.onnx]
        checksum: md5:0123456789abcdef0123456789abcdef
        export: onnx
      two-seg:
        input: any
        weights_licence: CC-BY-NC-4.0
        mask_ap: 40
        mask_ap_source: its paper
        urls: [https://example.org/two.pt]
        checksum: none
        export: own
        variant: two
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEG_PERCEPTION_HOME", str(tmp_path))
    return tmp_path / "models"


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_each_entry_fits_the_toolchain(entry: CatalogueEntry):
    assert (class_table_directory() / f"{entry.classes}.yaml").is_file()
    assert entry.mask_ap is None or entry.mask_ap_source
    if entry.export == SHIPPED:
        from seg_perception.core.contract import ModelSpec
        from seg_perception.offboard.toolchain.export import load_model, metadata_of

        path = share_directory() / "engines" / entry.file
        spec = ModelSpec.from_metadata(metadata_of(load_model(path, weights=False)[0]), entry.name)
        assert (spec.family, (spec.network_height, spec.network_width)) == (entry.family, entry.input_size)
        assert not entry.restrictive_licences
        return
    family = import_module(f"seg_perception.offboard.toolchain.families.{entry.family}").family()
    assert family.name == entry.family
    assert entry.urls
    assert all(url.startswith("https://") for url in entry.urls)
    if entry.export != ONNX:
        recipe = catalogue().recipes[entry.export]
        told = "\n".join(recipe.steps("/a/checkpoint.pth", entry.variant))
        assert "/a/checkpoint.pth" in told or entry.variant in told
        assert recipe.packages


def test_the_catalogue_has_every_source():
    names = {entry.name for entry in ENTRIES}
    assert {f"rfdetr-seg-{size}" for size in ("nano", "small", "medium", "large", "xlarge", "2xlarge")} <= names
    assert {f"rtmdet-ins-{size}" for size in ("tiny", *"smlx")} <= names
    assert {"maskrcnn-r50", "maskrcnn-r50-v2", "mask2former-r50", "eomt-l", "street-nano"} <= names
    assert {f"{kind}{size}-seg" for kind in ("yolo11", "yolo26") for size in "nsmlx"} <= names
    assert {f"dfine-seg-{size}" for size in "nsmlx"} <= names


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_a_checksum_in_a_file_name_is_the_entrys(entry: CatalogueEntry):
    """OpenMMLab and torchvision write the beginning of the SHA-256 into the name."""
    found = re.search(r"-([0-9a-f]{8})\.pth$", entry.file)
    if found:
        assert entry.checksum == Checksum("sha256-prefix", found[1])


def test_ultralytics_has_to_be_accepted_and_others_need_not():
    assert {entry.name for entry in ENTRIES if entry.restrictive_licences} == {
        entry.name for entry in ENTRIES if entry.name.startswith("yolo")
    }
    assert {entry.weights_licence for entry in ENTRIES} <= PERMISSIVE | {"AGPL-3.0"}


def test_a_catalogue_is_read(tmp_path: Path):
    read = load_catalogue(written(tmp_path, GOOD))
    one, two = read.entries["one-seg"], read.entries["two-seg"]
    assert (one.input_size, one.file, one.mask_ap, one.restrictive_licences) == ((384, 640), "one.onnx", None, [])
    assert (two.input_size, two.mask_ap, two.restrictive_licences) == (None, 40.0, ["weights: CC-BY-NC-4.0"])
    assert two.checksum.fits("any", "thing")
    assert read.recipes["own"].steps("f", two.variant) == ["export f as two"]


@pytest.mark.parametrize(("old", "new", "expected"), [
    ("family: yolov8", "family: 8", "one-seg: `family`: expected text, got '8'"),
    ("family: yolov8, ", "", "`family`: expected text, got nothing"),
    ("task: instances", "task: boxes", "`task`: expected one of instances, panoptic, semantic, got 'boxes'"),
    ("input: 384x640", "input: 384", "`input`: expected text"),
    ("input: 384x640", "input: 00x640", "`input`: expected HEIGHTxWIDTH or any, got '00x640'"),
    ("https://example.org/one.onnx", "http://example.org/one.onnx", "`urls`: expected addresses with https"),
    ("[https://example.org/one.onnx]", "[]", "`urls`: expected addresses with https"),
    ("[https://example.org/one.onnx]", "[1]", "`urls`: expected a list of text"),
    ("md5:0123456789abcdef0123456789abcdef", "md5:0123", "`checksum`: expected one of sha256:DIGITS"),
    ("md5:0123456789abcdef0123456789abcdef", "md5:0123456789ABCDEF0123456789ABCDEF", "in lower case"),
    ("md5:0123456789abcdef0123456789abcdef", "sha256-prefix:01", "`checksum`"),
    ("checksum: md5:0123456789abcdef0123456789abcdef", "bytes: 3", "`checksum`: expected text, got nothing"),
    ("export: onnx", "export: magic", "`export`: expected one of onnx, shipped, own, got 'magic'"),
    ("export: onnx", "export: own", "expected a name that ends with .onnx for a model that needs no recipe"),
    ("export: onnx", "export: shipped", "none for a model that is shipped"),
    ("export: onnx", "export: onnx\n        bytes: -1", "`bytes`: expected a number of bytes"),
    ("export: onnx", "export: onnx\n        file: ../one.onnx", "`file`: expected the name of a file"),
    ("export: onnx", "export: onnx\n        colour: red", "one-seg: expected the fields"),
    ("mask_ap: 40", "mask_ap: 0.4", "`mask_ap`: expected percent"),
    ("mask_ap: 40", "mask_ap: yes", "`mask_ap`: expected a number"),
    ("mask_ap_source: its paper", "mask_ap_source: ''", "`mask_ap_source`: expected who published"),
    ("one-seg:", "One_seg:", "expected a name of lower-case letters and digits"),
    ("one-seg:", "one-fp16:", "without a precision"),
    ("two-seg:", "one-seg:", "is not YAML|`name`|one-seg"),
    ("https://example.org/two.pt]", "https://example.org/two.pt]\n        file: one.onnx", "one.onnx"),
    ("{file} as", "{folder} as", "`how`: expected text with {file} and {variant}"),
    ("groups:", "models:", "the file: expected the fields groups, recipes"),
])  # fmt: skip
def test_a_malformed_catalogue_names_the_entry_and_the_field(old: str, new: str, expected: str, tmp_path: Path):
    assert old in GOOD
    path = written(tmp_path, GOOD.replace(old, new, 1))
    if old == "two-seg:":  # of two keys, YAML takes the later
        assert list(load_catalogue(path).entries) == ["one-seg"]
        return
    with pytest.raises(ConfigurationError, match="model catalogue") as caught:
        load_catalogue(path)
    assert expected in str(caught.value)


@pytest.mark.parametrize(("text", "expected"), [
    ("[", "is not YAML"),
    ("- 1", "the file: expected a mapping"),
    ("", "got nothing"),
])  # fmt: skip
def test_what_is_no_catalogue(text: str, expected: str, tmp_path: Path):
    with pytest.raises(ConfigurationError, match=expected):
        load_catalogue(written(tmp_path, text))
    with pytest.raises(ConfigurationError, match="does not exist"):
        load_catalogue(tmp_path / "absent.yaml")


def test_two_models_in_one_file_of_a_mirror(tmp_path: Path):
    twice = GOOD.replace("export: own", "export: own\n        file: x.pt") + GOOD.split("groups:")[1].replace(
        "-seg:", "-more:"
    )
    with pytest.raises(ConfigurationError, match=r"`file`: expected another one for each model, got one.onnx"):
        load_catalogue(written(tmp_path, twice))


def test_a_name_stands_for_what_was_fetched(home: Path):
    home.mkdir()
    (home / "rfdetr-seg-nano.onnx").touch()
    (home / "rfdetr-seg-nano-fp16.onnx").touch()
    assert find_model("rfdetr-seg-nano") == home / "rfdetr-seg-nano.onnx"
    assert find_model("rfdetr-seg-nano-fp16") == home / "rfdetr-seg-nano-fp16.onnx"
    (home / "rfdetr-seg-nano-int8.onnx").touch()
    (home / "road.onnx").touch()
    assert find_model("rfdetr-seg-nano-int8") == home / "rfdetr-seg-nano-int8.onnx"
    assert find_model("road") == home / "road.onnx"
    assert find_model("street-nano") == share_directory() / "engines" / "street-nano.onnx"
    assert find_model("street-nano.onnx") == share_directory() / "engines" / "street-nano.onnx"


@pytest.mark.parametrize(("name", "command"), [
    ("rfdetr-seg-nano", "seg_perception fetch rfdetr-seg-nano\n"),
    ("rfdetr-seg-nano-fp16", "seg_perception fetch rfdetr-seg-nano --precision fp16\n"),
    ("yolo11n-seg", "seg_perception fetch yolo11n-seg\n"),  # the licence is shown first
    ("mask2former-r50", "seg_perception fetch mask2former-r50\n"),
])  # fmt: skip
def test_a_name_that_was_not_fetched_tells_the_command(name: str, command: str, home: Path):
    with pytest.raises(ConfigurationError) as caught:
        find_model(name)
    assert command in str(caught.value)
    assert str(home / f"{name}.onnx") in str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["rfdetr-seg-nano.onnx", "road", "car-seg", "models/rfdetr-seg-nano", "fp16", "", "../x"],
)
def test_what_is_no_name_is_a_path(name: str):
    assert find_model(name) == Path(name)


@pytest.mark.parametrize(("name", "meant"), [
    ("rfdetr-seg-nan", "rfdetr-seg-nano"),
    ("yolo11-seg", "yolo11n-seg"),
    ("rtmdet-ins-tyny", "rtmdet-ins-tiny"),
])  # fmt: skip
def test_what_is_nearly_a_name(name: str, meant: str):
    with pytest.raises(ConfigurationError, match=rf"'{name}': is not in the catalogue; did you mean .*{meant}"):
        find_model(name)


def test_the_demo_takes_a_name(tmp_path: Path):
    from demo.model import MODEL, canonical

    assert canonical(Path("street-nano"), tmp_path).samefile(MODEL)


def test_a_file_here_goes_before_the_catalogue_and_a_folder_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path
):
    monkeypatch.chdir(tmp_path)
    Path("rfdetr-seg-nano").mkdir()
    with pytest.raises(ConfigurationError, match="seg_perception fetch"):
        find_model("rfdetr-seg-nano")
    Path("rfdetr-seg-small").touch()
    assert find_model("rfdetr-seg-small") == Path("rfdetr-seg-small")


def test_where_models_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert models_folder() == tmp_path / "models"
    monkeypatch.delenv("SEG_PERCEPTION_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert models_folder() == tmp_path / "data" / "seg_perception" / "models"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert models_folder() == tmp_path / "me" / ".local" / "share" / "seg_perception" / "models"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEG_PERCEPTION_HOME", "here")
    assert models_folder() == tmp_path / "here" / "models"


@pytest.mark.parametrize("arguments", [
    ["inspect", "rfdetr-seg-nano"],
    ["quantize", "rfdetr-seg-nano", "-o", "x.onnx", "--calibration", "y"],
    ["build", "rfdetr-seg-nano", "-o", "engines", "--target", "tensorrt-rtx"],
    ["image", "x.png", "--model", "rfdetr-seg-nano", "-o", "out"],
    ["bench", "rfdetr-seg-nano"],
    ["replay", "x.png", "--model", "rfdetr-seg-nano", "-o", "x.mcap"],
    ["label", "x.png", "--model", "rfdetr-seg-nano", "-o", "set"],
    ["evaluate", "--model", "rfdetr-seg-nano", "--dataset", "x.json", "--images", ".", "-o", "result"],
    ["verify", "rfdetr-seg-nano", "--reference", "rfdetr-seg-small", "--data", "x.png", "-o", "out"],
])  # fmt: skip
def test_every_command_tells_how_to_fetch(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    import cv2
    import numpy as np

    monkeypatch.chdir(tmp_path)
    cv2.imwrite("x.png", np.zeros((8, 8, 3), np.uint8))
    image = {"id": 1, "file_name": "x.png", "width": 8, "height": 8}
    Path("x.json").write_text(
        json.dumps({"images": [image], "annotations": [], "categories": [{"id": 1, "name": "car"}]})
    )
    assert main(arguments) == 1
    assert "seg_perception fetch rfdetr-seg-nano" in capsys.readouterr().err


def test_models_lists_them_all(home: Path, capsys: pytest.CaptureFixture[str]):
    home.mkdir()
    (home / "rfdetr-seg-nano-fp16.onnx").touch()
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line for line in lines[1:] if line}
    assert set(rows) >= {entry.name for entry in ENTRIES}
    assert rows["rfdetr-seg-nano"].endswith("ready (fp16)")
    assert rows["street-nano"].endswith("shipped")
    assert "AGPL-3.0 *" in rows["yolo26x-seg"]
    assert re.search(r"9 of 80, 4 of 4 groups +47\.0 ", rows["yolo26x-seg"])
    assert str(home) in lines[-1]


def test_models_as_json(home: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["models", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["folder"] == str(home)
    models = {model["name"]: model for model in told["models"]}
    assert models["eomt-l"]["file"] == "coco_instance_eomt_large_640.bin"
    assert models["eomt-l"]["checksum"] == "no checksum"
    assert models["eomt-l"]["bytes"] is None
    assert models["rfdetr-seg-nano"]["input"] == [312, 312]
    assert models["maskrcnn-r50"]["road_classes"] == {
        "pedestrian": 1, "vehicle": 6, "traffic_sign": 1, "traffic_light": 1
    }  # fmt: skip
    assert models["street-nano-int8"]["shipped"]
    assert models["street-nano-int8"]["bytes"] > 1_000_000
    assert not models["yolo11n-seg"]["permissive"]


def written(folder: Path, text: str) -> Path:
    path = folder / "models.yaml"
    path.write_text(text)
    return path
