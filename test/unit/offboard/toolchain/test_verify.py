"""`seg_perception verify`: a good model passes, a broken one fails, and the report shows where."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from colour_model import FAULT_COLOUR, NAMES, Scene, colour_model, paint_scene, save_canonical_colour_model
from onnx import helper, numpy_helper
from panoptic_model import save_panoptic_model, save_semantic_model

from seg_perception.cli.main import main
from seg_perception.offboard.toolchain.prepare import prepare

PERSON, CAR, SIGN = 0, 1, 2
SCENES = {
    "corner": [(32, 32, 160, 192, PERSON), (240, 80, 560, 320, CAR)],
    "square": [(64, 64, 192, 192, SIGN), (400, 32, 480, 352, PERSON)],
    "bridge": [(224, 240, 368, 336, CAR), (32, 32, 128, 160, CAR), (420, 40, 520, 140, SIGN)],
}
WITH_CARS, WITHOUT_CARS = ("corner", "bridge"), "square"


def edited(path: Path, edit: Callable[[onnx.GraphProto], None], **options: Any) -> Path:
    """A canonical model, made from a raw export of the colour model after `edit`."""
    model = colour_model(**options)
    edit(model.graph)
    onnx.checker.check_model(model, full_check=True)
    raw = path.with_suffix(".raw.onnx")
    raw.write_bytes(model.SerializeToString())
    prepare(raw, path)
    return path


def renamed(graph: onnx.GraphProto, output: str) -> str:
    """Give the tensor behind an output another name, so that a new node can make the output from it."""
    (node,) = [node for node in graph.node if output in node.output]
    node.output[0] = f"{output}_before"
    return node.output[0]


def without_cars(graph: onnx.GraphProto) -> None:
    factor = np.ones((1, 4 + len(NAMES) + 32, 1), np.float32)
    factor[0, 4 + CAR] = 0
    graph.initializer.append(numpy_helper.from_array(factor, "factor"))
    graph.node.append(helper.make_node("Mul", [renamed(graph, "output0"), "factor"], ["output0"]))


def with_shifted_masks(graph: onnx.GraphProto) -> None:
    before = renamed(graph, "output1")
    for name, values in {"zero": [0], "three": [3], "end": [1 << 40], "width": [3]}.items():
        graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
    graph.node.extend(
        [
            helper.make_node("Slice", [before, "three", "end", "width"], ["right"]),
            helper.make_node("Slice", [before, "zero", "three", "width"], ["left"]),
            helper.make_node("Concat", ["right", "left"], ["output1"], axis=3),
        ]
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "good": save_canonical_colour_model(folder / "good.onnx", fault="predictions"),
        "larger": save_canonical_colour_model(folder / "larger.onnx", width=640, height=384),
        "blind": edited(folder / "blind.onnx", without_cars),
        "shifted": edited(folder / "shifted.onnx", with_shifted_masks),
    }


def save(folder: Path, scenes: dict[str, Scene]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, scene in scenes.items():
        assert cv2.imwrite(str(folder / f"{name}.png"), scene.image[..., ::-1])
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return save(tmp_path / "images", {name: paint_scene(640, 384, scene) for name, scene in SCENES.items()})


@pytest.fixture
def labels(images: Path) -> Path:
    """Annotations of the images, next to their folder."""
    content: dict[str, Any] = {"categories": [{"id": 7 + label, "name": name} for label, name in enumerate(NAMES)]}
    content["images"] = [
        {"id": number, "file_name": f"{name}.png", "width": 640, "height": 384} for number, name in enumerate(SCENES)
    ]
    objects = [(number, box) for number, boxes in enumerate(SCENES.values()) for box in boxes]
    content["annotations"] = [
        {
            "id": number,
            "image_id": image,
            "category_id": 7 + label,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]],
        }
        for number, (image, (x1, y1, x2, y2, label)) in enumerate(objects)
    ]
    path = images.parent / "instances.json"
    path.write_text(json.dumps(content))
    return path


class Page(HTMLParser):
    """The text of a page, the sources of its images, and everything that would be fetched."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.words: list[str] = []
        self.headings: list[str] = []
        self.images: list[str] = []
        self.fetched: list[str] = []
        self.tags: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attributes:
            if name == "src" and (value or "").startswith("data:image/jpeg;base64,"):
                self.images.append(str(value))
            elif name in ("src", "href", "srcset", "action") and not (value or "").startswith("#"):
                self.fetched.append(str(value))

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self.tags[-1:] == ["h3"] and data.strip():
            self.headings.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)


def run(*arguments: object) -> int:
    # ONNX Runtime opens such small models several times faster.
    backends = ["--backend", "onnxruntime", "--reference-backend", "onnxruntime"]
    return main(["verify", *backends, *map(str, arguments)])


def test_a_model_passes_against_itself(
    models: dict[str, Path], images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(models["good"], "--reference", models["good"], "--data", images, "-o", out) == 0
    printed = capsys.readouterr().out
    assert "within the budget" in printed
    assert re.search(r"matched +7\n", printed)
    page = Page(out / "report.html")
    assert "Within the budget." in page.text
    assert "No frame differs." in page.text
    assert page.images == page.headings == page.fetched == []


def test_a_model_that_overlooks_cars_fails_and_the_frames_are_named(
    models: dict[str, Path], images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(models["blind"], "--reference", models["good"], "--data", images, "-o", out) == 1
    printed = capsys.readouterr().out
    assert "over the budget" in printed
    assert "3 false negatives, 0 false positives, 0 class confusions" in printed
    page = Page(out / "report.html")
    # The frame with two of them is the worse one.
    assert page.headings == ["bridge", "corner"]
    assert re.findall(r"^differs: (\w+): false negatives car", printed, re.MULTILINE) == ["bridge", "corner"]
    assert f"differs: {WITHOUT_CARS}" not in printed
    assert "Over the budget." in page.text
    assert len(page.images) == 3 * len(WITH_CARS)
    assert page.fetched == []
    assert "://" not in (out / "report.html").read_text()


def test_exchanged_models_have_too_much(
    models: dict[str, Path], images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(models["good"], "--reference", models["blind"], "--data", images) == 1
    assert "0 false negatives, 3 false positives, 0 class confusions" in capsys.readouterr().out


def test_shifted_masks_fail_by_their_overlap(
    models: dict[str, Path], images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (models["shifted"], "--reference", models["good"], "--data", images)
    assert run(*arguments) == 1
    assert "mean mask IoU of 7 matched instances: expected at least 0.97" in capsys.readouterr().out
    assert run(*arguments, "--min-iou", 0.5) == 0


def test_network_sizes_may_differ(models: dict[str, Path], images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(models["good"], "--reference", models["larger"], "--data", images) == 0
    assert re.search(r"matched +7\n", capsys.readouterr().out)


def test_with_labels_the_loss_of_average_precision_decides(
    models: dict[str, Path], images: Path, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(models["good"], "--reference", models["good"], "--data", labels) == 0
    assert run(models["blind"], "--reference", models["good"], "--data", labels, "-o", out) == 1
    printed = capsys.readouterr().out
    # One of the three classes with objects is lost, from an AP of 1.
    loss = float(re.search(r"a loss of at most 0.5 points, got ([\d.]+)", printed)[1])  # type: ignore[index]
    assert loss == pytest.approx(100 / 3, abs=3)
    assert re.search(r"vehicle +1\.0000 +0\.0000 +-100\.00", printed)
    page = Page(out / "report.html")
    assert page.headings == ["bridge.png", "corner.png"]
    assert "Average precision, mask" in page.text
    assert run(models["blind"], "--reference", models["good"], "--data", labels, "--max-loss", 40) == 0
    assert run(models["good"], "--reference", models["good"], "--data", images, "--labels", labels) == 0


def test_with_labels_agreement_is_judged_on_request(
    models: dict[str, Path], labels: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (models["blind"], "--reference", models["good"], "--data", labels, "--max-loss", 100)
    assert run(*arguments) == 0
    assert run(*arguments, "--max-faults", 0.02) == 1
    printed = capsys.readouterr().out
    assert "at most 2 %" in printed
    assert "expected at least" not in printed


def test_frames_without_instances_prove_nothing(
    models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = save(tmp_path / "empty", {"nothing": paint_scene(640, 384, [])})
    assert run(models["good"], "--reference", models["good"], "--data", empty) == 1
    assert "nothing to compare" in capsys.readouterr().out


def test_labels_without_objects_prove_nothing(
    models: dict[str, Path], labels: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads(labels.read_text())
    labels.write_text(json.dumps({**content, "annotations": []}))
    assert run(models["good"], "--reference", models["good"], "--data", labels) == 1
    assert "nothing to compare: the labels have no object" in capsys.readouterr().out


def test_what_was_skipped_is_said(
    models: dict[str, Path], labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = labels.parent / "images"
    (images / "square.png").write_bytes(b"no image")
    (images / "bridge.png").unlink()
    assert run(models["good"], "--reference", models["good"], "--data", labels, "-o", tmp_path / "out") == 0
    printed, page = capsys.readouterr().out, Page(tmp_path / "out" / "report.html")
    for text in (printed, page.text):
        assert "square.png" in text
        assert "1 labelled images are not there, such as bridge.png" in text
    assert "1 frames" in page.text


def test_class_maps_are_compared_too(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = save_panoptic_model(tmp_path / "good.onnx")
    model = onnx.load(good)
    (stuff,) = [tensor for tensor in model.graph.initializer if tensor.name == "stuff/stuff"]
    moved = np.roll(numpy_helper.to_array(stuff), 6, axis=1)  # of 48 rows: two edges of 6 rows are wrong
    stuff.CopyFrom(numpy_helper.from_array(moved, stuff.name))
    broken, out = tmp_path / "broken.onnx", tmp_path / "out"
    onnx.save(model, broken)
    assert run(good, "--reference", good, "--data", images) == 0
    assert "pixels of the same class                  100.00 %" in capsys.readouterr().out
    assert run(broken, "--reference", good, "--data", images, "-o", out) == 1
    (reason,) = capsys.readouterr().out.split("over the budget:\n")[1].splitlines()
    assert reason.startswith("  class map: expected the same class in at least 97 % of the pixels")
    assert sorted(Page(out / "report.html").headings) == sorted(SCENES)
    # Frames with nothing but road and sky are something to compare.
    empty = save(tmp_path / "empty", {"nothing": paint_scene(640, 384, [])})
    assert run(good, "--reference", good, "--data", empty) == 0
    assert run(broken, "--reference", good, "--data", empty) == 1
    assert "got 75.00 %" in capsys.readouterr().out


def test_a_model_with_a_class_map_only(
    models: dict[str, Path], images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_semantic_model(tmp_path / "unet.onnx")
    assert run(model, "--reference", model, "--data", images) == 0
    printed = capsys.readouterr().out
    assert re.search(r"class map: mean IoU of the classes +1\.0000\n", printed)
    # What the map falls apart into are no instances of the model's.
    assert "matched" not in printed
    panoptic = save_panoptic_model(tmp_path / "panoptic.onnx")
    assert run(models["good"], "--reference", panoptic, "--data", images) == 1
    assert "only the reference has one" in capsys.readouterr().err


def test_labels_do_not_judge_a_model_with_a_class_map_only(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, broken = save_semantic_model(tmp_path / "good.onnx"), tmp_path / "broken.onnx"
    model = onnx.load(good)
    (maker,) = [node for node in model.graph.node if "class_map" in node.output]
    maker.output[0] = "right"
    model.graph.initializer.append(numpy_helper.from_array(np.uint8(1), "first class"))
    model.graph.node.append(onnx.helper.make_node("Max", ["right", "first class"], ["class_map"]))
    onnx.save(model, broken)
    names = sorted(path.name for path in images.iterdir())
    labels = {
        "images": [{"id": 1, "file_name": names[0], "width": 640, "height": 384}],
        "annotations": [],
        "categories": [{"id": 1, "name": "car"}],
    }
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(labels))
    arguments = ("--reference", good, "--data", images, "--labels", path)
    assert run(good, *arguments) == 0
    assert "the labels are of instances, and these models have a class map alone" in capsys.readouterr().out
    assert run(broken, *arguments, "-o", tmp_path / "out") == 1
    assert "over the budget:\n  class map:" in capsys.readouterr().out
    assert "budget: the same class in 97 % of the pixels" in Page(tmp_path / "out" / "report.html").text
    assert run(broken, *arguments, "--min-iou", "0", "--min-class-iou", "0") == 0


def test_names_are_text_and_not_markup(tmp_path: Path) -> None:
    names = ("<b>person</b>", "car & <script>alert(1)</script>", "sign", "light")
    good = save_canonical_colour_model(tmp_path / "good.onnx", names=names)
    blind = edited(tmp_path / "<i>blind&.onnx", without_cars, names=names)
    folder = save(tmp_path / "images", {"<u>corner'&": paint_scene(640, 384, SCENES["corner"])})
    assert run(blind, "--reference", good, "--data", folder, "-o", tmp_path / "out") == 1
    page = Page(tmp_path / "out" / "report.html")
    assert page.headings == ["<u>corner'&"]
    assert "false negatives car & <script>alert(1)</script>" in page.text
    assert not {"b", "i", "u"} & set(page.tags)
    assert page.tags.count("script") == 1


def test_fewer_images_on_request(models: dict[str, Path], images: Path, tmp_path: Path) -> None:
    arguments = (models["blind"], "--reference", models["good"], "--data", images, "-o")
    assert run(*arguments, tmp_path / "one", "--report-frames", 1) == 1
    assert Page(tmp_path / "one" / "report.html").headings == ["bridge"]
    assert run(*arguments, tmp_path / "none", "--report-frames", 0) == 1
    assert "No images were asked for." in Page(tmp_path / "none" / "report.html").text


def test_other_classes_are_refused(
    models: dict[str, Path], images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exchanged = save_canonical_colour_model(tmp_path / "a.onnx", names=("person", "bus", "stop sign", "traffic light"))
    fewer = save_canonical_colour_model(tmp_path / "b.onnx", names=NAMES[:3])
    assert run(exchanged, "--reference", models["good"], "--data", images) == 1
    assert "for label 1 'car' (thing) and 'bus' (thing)" in capsys.readouterr().err
    assert run(fewer, "--reference", models["good"], "--data", images) == 1
    assert "4 and 3 classes" in capsys.readouterr().err


def test_a_model_that_breaks_is_reported_with_the_frame(
    models: dict[str, Path], images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = paint_scene(640, 384, [])
    broken.image[:32, :32] = FAULT_COLOUR
    save(images, {"white": broken})
    assert run(models["good"], "--reference", models["larger"], "--data", images) == 1
    assert "frame white: model output: expected finite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "absent"], "does not exist"),
        (["--data", "absent.json"], "does not exist; expected a COCO annotation file"),
        (["--data", "images", "--max-loss", "1"], "--max-loss: expected labelled images"),
        (["--data", "instances.json", "--labels", "instances.json"], "--labels: expected none"),
        (["--data", "images", "--score", "2"], "expected a score from 0 to 1"),
        (["--data", "images", "--min-iou", "2"], "lowest mean mask IoU: expected 0 to 1"),
        (["--data", "instances.json", "--max-loss", "-1"], "largest loss: expected 0 to 100"),
        (["--data", "images", "--reference", "absent.onnx"], "does not exist"),
        (["--data", "images", "--backend", "abacus"], "abacus"),
        (["--data", "images", "--classes", "absent"], "class table"),
        (["--data", "images", "-o", "/proc/nowhere"], "cannot be written"),
    ],
)
def test_errors_say_what_was_expected(
    arguments: list[str],
    message: str,
    models: dict[str, Path],
    labels: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(labels.parent)
    assert run(models["good"], "--reference", models["good"], *arguments) == 1
    assert message in capsys.readouterr().err


def test_an_engine_that_cannot_be_opened_is_an_error(
    models: dict[str, Path], images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = tmp_path / "model.engine"
    engine.write_bytes(b"no engine")
    assert run(engine, "--reference", models["good"], "--data", images) == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_pycocotools_is_needed_for_labels_only(models: dict[str, Path], images: Path, labels: Path) -> None:
    block = "import sys; sys.modules['pycocotools'] = None"
    code = f"{block}; from seg_perception.cli.main import main; sys.exit(main(sys.argv[1:]))"
    good = str(models["good"])
    for data, status in ((images, 0), (labels, 1)):
        arguments = ["verify", good, "--reference", good, "--data", str(data)]
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
        assert ("pip install pycocotools" in done.stderr) == bool(status)
        assert "Traceback" not in done.stderr
