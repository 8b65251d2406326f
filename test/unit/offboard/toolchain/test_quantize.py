"""Quantization from end to end on a small network: frames, gate, layers that return to float16, errors, the command."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from colour_model import NAMES, Scene, random_scene, save_canonical_colour_model
from conv_model import INT8_LAYERS, conv_model, save_canonical_conv_model

from seg_perception.cli.main import main
from seg_perception.core.errors import ConfigurationError, ModelError, NotCanonicalError
from seg_perception.core.frame import Frame
from seg_perception.core.instances import Detections
from seg_perception.offboard.data.images import read_image
from seg_perception.offboard.metrics.agreement import AgreementBudget
from seg_perception.offboard.metrics.masks import encode_rle
from seg_perception.offboard.toolchain.precision.cost import precision_summary
from seg_perception.offboard.toolchain.precision.emulate import emulated
from seg_perception.offboard.toolchain.quantize import progress
from seg_perception.offboard.toolchain.quantize.frames import CalibrationSet, gather
from seg_perception.offboard.toolchain.quantize.gate import Budget, Gate, GateVerdict
from seg_perception.offboard.toolchain.quantize.layers import Layer, Network
from seg_perception.offboard.toolchain.quantize.quantize import QuantizeOptions, frames_summary, quantize
from seg_perception.offboard.toolchain.quantize.report import REPORT_KEY, Precision, QuantizationReport, report_of
from seg_perception.onboard.backend.registry import open_backend

DATA = Path(__file__).resolve().parents[5] / "shared" / "data"
WIDTH, HEIGHT = 160, 96
# One of the calibration methods, where the choice among them is not the point.
METHOD = "minmax"


def scenes(count: int, seed: int = 0) -> list[Scene]:
    rng = np.random.default_rng(seed)
    return [random_scene(rng, WIDTH, HEIGHT, 4, sides=(16, 40)) for _ in range(count)]


def write_images(folder: Path, drawn: list[Scene]) -> Path:
    folder.mkdir(parents=True)
    for index, scene in enumerate(drawn):
        cv2.imwrite(str(folder / f"{index:03d}.png"), scene.image[..., ::-1])
    return folder


def write_labels(folder: Path, drawn: list[Scene]) -> Path:
    """Images in `images` and the annotation file next to it."""
    write_images(folder / "images", drawn)
    images = [
        {"id": index, "file_name": f"{index:03d}.png", "width": WIDTH, "height": HEIGHT} for index in range(len(drawn))
    ]
    annotations = [
        {
            "image_id": index,
            "category_id": int(label) + 1,
            "bbox": [float(x1), float(y1), float(x2 - x1), float(y2 - y1)],
            "segmentation": encode_rle(scene.instance_map == number + 1),
            "area": float((x2 - x1) * (y2 - y1)),
            "iscrowd": 0,
        }
        for index, scene in enumerate(drawn)
        for number, (label, (x1, y1, x2, y2)) in enumerate(zip(scene.labels, scene.boxes, strict=True))
    ]
    categories = [{"id": number, "name": name} for number, name in enumerate(NAMES, 1)]
    path = folder / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_canonical_conv_model(tmp_path_factory.mktemp("model") / "model.onnx", width=WIDTH, height=HEIGHT)


@pytest.fixture(scope="module")
def outlier_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outlier")
    return save_canonical_conv_model(folder / "model.onnx", width=WIDTH, height=HEIGHT, outlier=400.0)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images") / "some", scenes(40))


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_labels(tmp_path_factory.mktemp("labels") / "set", scenes(24, seed=1))


class TestFrames:
    def test_the_split_and_the_hash_depend_on_the_pixels_alone(self, tmp_path: Path, images: Path, labels: Path):
        first = gather([images, labels])
        renamed = tmp_path / "renamed"
        renamed.mkdir()
        for index, path in enumerate(sorted(images.iterdir(), reverse=True)):
            (renamed / f"other{index:03d}.png").write_bytes(path.read_bytes())
        second = gather([labels, renamed])
        assert first.sha256 == second.sha256
        assert _digests(first, "held_back") == _digests(second, "held_back")
        assert not _digests(first, "held_back") & _digests(first, "calibration")

    def test_labelled_frames_are_mostly_for_the_gate_and_others_for_calibration(self, images: Path, labels: Path):
        frames = gather([images, labels])
        kinds = [
            (name, each.image_id is not None) for name in ("calibration", "held_back") for each in getattr(frames, name)
        ]
        assert kinds.count(("calibration", True)) == 6
        assert kinds.count(("held_back", True)) == 18
        assert kinds.count(("calibration", False)) == 30
        assert kinds.count(("held_back", False)) == 10

    def test_the_gate_sees_the_end_of_a_video_and_no_neighbours_of_what_set_the_scales(self, tmp_path: Path):
        writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (WIDTH, HEIGHT))
        for scene in scenes(20):
            writer.write(np.ascontiguousarray(scene.image[..., ::-1]))
        writer.release()
        frames = gather([tmp_path / "clip.avi"])
        last = max(each.name for each in frames.calibration)
        assert len(frames.held_back) == 5
        assert all(each.name > last for each in frames.held_back)

    def test_frames_can_be_read_again(self, images: Path, labels: Path):
        frames = gather([images, labels])
        for _ in range(2):
            read = dict(frames.frames(frames.held_back))
            assert set(read) == set(frames.held_back)
        assert all((frame.width, frame.height) == (WIDTH, HEIGHT) for frame in read.values())

    @pytest.mark.parametrize("labelled", [True, False])
    def test_only_the_frames_that_are_wanted_are_decoded_again(
        self, images: Path, labels: Path, labelled: bool, monkeypatch: pytest.MonkeyPatch
    ):
        # A network of a hundred layers reads the same few frames of a folder of thousands a hundred times.
        frames = gather([labels if labelled else images], limit=4)
        decoded: list[Path] = []

        def counting(path: Path, **options: Any) -> Frame:
            decoded.append(path)
            return read_image(path, **options)

        for module in ("data.images", "evaluation.coco"):
            monkeypatch.setattr(f"seg_perception.offboard.{module}.read_image", counting)
        wanted = frames.images[1:3]
        assert {each.name for each, _ in frames.frames(wanted)} == {each.name for each in wanted}
        assert len(decoded) == 2

    def test_a_depth_that_follows_from_all_images_is_the_same_when_some_are_read_again(self, tmp_path: Path):
        folder = tmp_path / "deep"
        folder.mkdir()
        for index in range(4):
            image = np.full((HEIGHT, WIDTH), 4000 if index == 0 else 900 + index, np.uint16)
            cv2.imwrite(str(folder / f"{index}.png"), image)
        frames = gather([folder], bit_depth="auto")
        last = [each for each in frames.images if each.name == "3"]
        assert [frame.bit_depth for _, frame in frames.frames(last)] == [12]

    def test_more_frames_than_wanted_are_thinned_out_evenly(self, images: Path):
        names = sorted(each.name for each in gather([images], limit=10).images)
        assert len(names) == 10
        assert (names[0], names[-1]) == ("000", "039")

    def test_what_cannot_be_read_is_listed_and_equal_frames_count_once(self, tmp_path: Path):
        folder = write_images(tmp_path / "some", scenes(5))
        (folder / "copy.png").write_bytes((folder / "000.png").read_bytes())
        (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff no image")
        frames = gather([folder])
        summary = frames_summary(frames)
        assert (len(frames.images), frames.duplicates, len(frames.failures)) == (5, 1, 1)
        assert "1 could not be read" in summary
        assert "broken.jpg" in summary
        assert "warning: only 5 frames; give 32 or more" in summary

    def test_enough_frames_need_no_warning(self, images: Path):
        assert "warning" not in frames_summary(gather([images]))

    def test_labelled_images_that_are_not_there_are_counted(self, tmp_path: Path):
        path = write_labels(tmp_path / "set", scenes(4))
        (path.parent / "images" / "002.png").unlink()
        assert "1 labelled images are not there, such as 002.png" in frames_summary(gather([path]))

    @pytest.mark.parametrize("limit", [1, 0, -3])
    def test_too_few_frames_wanted(self, images: Path, limit: int):
        with pytest.raises(ConfigurationError, match="--max-frames: expected at least 2"):
            gather([images], limit)

    def test_frames_that_are_all_the_same(self, tmp_path: Path):
        folder = write_images(tmp_path / "same", scenes(1) * 40)
        with pytest.raises(ConfigurationError, match="all 40 frames are the same image"):
            gather([folder])

    def test_frames_none_of_which_can_be_read(self, tmp_path: Path):
        (tmp_path / "broken.jpg").write_bytes(b"no image")
        with pytest.raises(ConfigurationError, match="no frame could be read") as error:
            gather([tmp_path])
        assert "broken.jpg" in str(error.value)


def _digests(frames: CalibrationSet, kind: str) -> set[str]:
    return {each.digest for each in getattr(frames, kind)}


def found_rectangles(path: Path, backend: str, scene: Scene) -> list[list[int]]:
    runner = open_backend(path, backend)
    (detections,) = runner.start([Frame.from_bgr(np.ascontiguousarray(scene.image[..., ::-1]))]).detections()
    assert isinstance(detections, Detections)
    kept = detections.scores > 0.25
    rows = np.column_stack([np.rint(detections.boxes_network[kept]), detections.labels[kept]])
    runner.close()
    return sorted(rows.astype(int).tolist())


def test_few_labels_do_not_decide_alone(tmp_path: Path, model_path: Path, images: Path, labels: Path):
    model = onnx.load(model_path)
    done = quantize(model, gather([images]), QuantizeOptions(Budget(), method=METHOD, force=True)).model
    # No two precisions agree to the last pixel, and no AP can be lost beyond a hundred points.
    budget = Budget(100.0, AgreementBudget(min_iou=1.0, max_faults=0.0))
    few = gather([write_labels(tmp_path / "few", scenes(6, seed=2))])
    for frames, decided in ((gather([labels]), True), (few, False)):
        verdict = Gate(model, frames, budget).measure(emulated(done)[0], "")
        assert verdict.differs
        assert (verdict.over == ()) == decided


@pytest.mark.parametrize("labelled", [True, False])
def test_a_quantized_model_finds_the_same_and_says_what_was_done(
    tmp_path: Path, model_path: Path, images: Path, labels: Path, labelled: bool
):
    frames = gather([images, labels] if labelled else [images])
    # The network blurs colours a little where rectangles end, which COCO's AP at an IoU of 0.95 takes for a loss.
    done = quantize(onnx.load(model_path), frames, QuantizeOptions(Budget(max_loss=5.0), method=METHOD))
    report = done.report
    assert {layer.name for layer in report.kept} == {"stem", "wide", "narrow"}
    assert report.int8_share == pytest.approx(precision_summary(done.model).share("int8"), abs=1e-3)
    assert not report.forced
    assert report.steps[-1].fits
    assert report.calibration_sha256 == frames.sha256
    assert report.precision.frames == len(frames.held_back)
    assert report.precision.labelled_frames == (18 if labelled else 0)
    if labelled:
        assert report.precision.float_mask_ap is not None
        assert report.precision.float_mask_ap > 0.9
        assert report.precision.mask_loss is not None
        assert abs(report.precision.mask_loss) <= 5.0
    assert report_of({item.key: item.value for item in done.model.metadata_props}) == report

    path = tmp_path / "int8.onnx"
    path.write_bytes(done.model.SerializeToString())
    for scene in scenes(4, seed=9):
        truth = sorted(
            [*np.rint(box).astype(int).tolist(), int(label)]
            for box, label in zip(scene.boxes, scene.labels, strict=True)
        )
        assert found_rectangles(path, "onnxruntime", scene) == truth
        assert found_rectangles(path, "openvino", scene) == truth


def test_with_labels_layers_are_kept_in_fp16_until_the_loss_of_average_precision_fits(model_path: Path, labels: Path):
    done = quantize(onnx.load(model_path), gather([labels]), QuantizeOptions(method=METHOD))
    losses = [step.precision.mask_loss for step in done.report.steps]
    assert losses[0] is not None
    assert losses[0] > 0.5
    assert losses[-1] is not None
    assert losses[-1] <= 0.5
    assert [step.fits for step in done.report.steps] == [loss is not None and loss <= 0.5 for loss in losses]
    assert done.report.steps[-1].int8_share < done.report.steps[0].int8_share


def test_the_sensitive_layer_is_kept_in_fp16_and_the_others_are_not(outlier_path: Path, images: Path):
    lines: list[str] = []
    done = quantize(onnx.load(outlier_path), gather([images]), QuantizeOptions(method=METHOD), lines.append)
    assert not done.report.steps[0].fits
    assert done.report.steps[-1].fits
    kept = {layer.name for layer in done.report.kept if layer.reason == "sensitive"}
    assert "branch" in kept
    assert len(kept) < len(INT8_LAYERS)
    assert any("most sensitive" in line and "branch" in line for line in lines)


@pytest.mark.parametrize("enough", [True, False])
def test_layers_that_were_ranked_before_the_sensitive_one_return_to_int8(
    outlier_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch, enough: bool
):
    order = ["first", "second", "join", "branch", "up"]
    ranks = {name: 1000.0 ** -place for place, name in enumerate(order)}
    toolchain = "seg_perception.offboard.toolchain.quantize"
    monkeypatch.setattr(f"{toolchain}.quantize.distortion_by_layer", lambda *_: ranks)
    for name in ("ENOUGH_FRAMES", "ENOUGH_INSTANCES"):
        monkeypatch.setattr(f"{toolchain}.report.{name}", 1 if enough else 1000)
    lines: list[str] = []
    done = quantize(onnx.load(outlier_path), gather([images]), QuantizeOptions(method=METHOD), lines.append)
    kept = {layer.name for layer in done.report.kept if layer.reason == "sensitive"}
    # On few frames one of many sets fits by chance, so that no more are tried.
    assert kept == ({"branch"} if enough else {"first", "second", "join", "branch"})
    assert done.report.steps[-1].fits
    assert any("in INT8 again: first, join, second" in line for line in lines) == enough


def test_only_those_return_to_int8_without_which_it_still_fits(
    outlier_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
):
    # The layer that matters comes first, and a strict gate wants two more: the others are tried and left.
    module = "seg_perception.offboard.toolchain.quantize.quantize"
    order = ["branch", "first", "second", "join", "up"]
    ranks = {name: 1000.0 ** -place for place, name in enumerate(order)}
    monkeypatch.setattr(f"{module}.distortion_by_layer", lambda *_: ranks)
    needed = {"branch", "second"}

    def kept_alone(gate: Gate, model: onnx.ModelProto, title: str) -> GateVerdict:
        quantized = {node.name for node in model.graph.node for name in node.input[1:2] if name.endswith("/float")}
        over = () if not needed & quantized else ("too much",)
        return GateVerdict(Precision(20, 200, 0.9, 0, 0, 0), over, over)

    monkeypatch.setattr(f"{module}.Gate.measure", kept_alone)
    done = quantize(onnx.load(outlier_path), gather([images]), QuantizeOptions(method=METHOD))
    assert {layer.name for layer in done.report.kept if layer.reason == "sensitive"} == needed


def test_depthwise_convolutions_are_kept_in_fp16_before_layers_are_ranked(
    outlier_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
):
    module = "seg_perception.offboard.toolchain.quantize.quantize"
    monkeypatch.setattr(f"{module}.distortion_by_layer", lambda *_: pytest.fail("nothing is left to rank"))
    layer_of = Network._layer

    def marked(network: Network, node: onnx.NodeProto) -> Layer | None:
        layer = layer_of(network, node)
        return layer and replace(layer, depthwise=layer.name == "branch")

    monkeypatch.setattr(Network, "_layer", marked)
    done = quantize(onnx.load(outlier_path), gather([images]), QuantizeOptions(method=METHOD))
    assert {layer.name for layer in done.report.kept if layer.reason == "sensitive"} == {"branch"}
    assert done.report.steps[-1].action == "kept in FP16: 1 depthwise convolutions"


class TestBudget:
    impossible = Budget(agreement=AgreementBudget(min_iou=1.0, max_faults=0.0))

    def test_a_model_that_loses_too_much_does_not_leave(self, outlier_path: Path, images: Path):
        with pytest.raises(ModelError, match=r"loses too much even with 4 of 5 layers in float16: .*--force"):
            quantize(onnx.load(outlier_path), gather([images]), QuantizeOptions(self.impossible, METHOD))

    def test_unless_it_is_forced_and_then_it_says_so(self, outlier_path: Path, images: Path):
        options = QuantizeOptions(self.impossible, METHOD, force=True)
        done = quantize(onnx.load(outlier_path), gather([images]), options)
        assert done.report.forced
        assert not done.report.steps[-1].fits
        again = report_of({item.key: item.value for item in done.model.metadata_props})
        assert again is not None
        assert again.forced

    @pytest.mark.parametrize(("values", "message"), [
        ({"budget": Budget, "max_loss": -1.0}, "--max-loss"),
        ({"method": "guess"}, "--method: expected one of minmax"),
        ({"int8_share": 2.0}, "--int8-share"),
    ])  # fmt: skip
    def test_options_that_make_no_sense(self, values: dict[str, Any], message: str):
        with pytest.raises(ConfigurationError, match=message):
            values.pop("budget")(**values) if "budget" in values else QuantizeOptions(**values)


class TestModelsThatCannotBe:
    def test_a_raw_export(self, images: Path):
        with pytest.raises(NotCanonicalError, match=r"seg_perception prepare raw\.onnx"):
            quantize(conv_model(width=WIDTH, height=HEIGHT), gather([images]), origin="raw.onnx")

    def test_a_quantized_one(self, model_path: Path, images: Path):
        frames = gather([images])
        done = quantize(onnx.load(model_path), frames, QuantizeOptions(method=METHOD))
        with pytest.raises(ModelError, match="quantized already"):
            quantize(done.model, frames)

    def test_one_without_layers(self, tmp_path: Path, images: Path):
        path = save_canonical_colour_model(tmp_path / "model.onnx", width=WIDTH, height=HEIGHT)
        with pytest.raises(ModelError, match="no layer can be quantized: it has 0 convolutions"):
            quantize(onnx.load(path), gather([images]))


def test_a_report_of_another_version_is_refused():
    with pytest.raises(ModelError, match="expected version"):
        QuantizationReport.from_json('{"version": 99}')


class TestCommand:
    def test_writes_the_model_and_prints_what_it_did(
        self, tmp_path: Path, model_path: Path, images: Path, labels: Path, capsys: pytest.CaptureFixture[str]
    ):
        result = tmp_path / "int8.onnx"
        arguments = ["--calibration", str(images), "--calibration", str(labels), "--max-loss", "5", "-o", str(result)]
        assert main(["quantize", str(model_path), *arguments]) == 0
        printed = capsys.readouterr().out
        assert "64 frames: 36 for calibration, 28 held back for the gate (18 with labels)" in printed
        assert "stem (Conv): fewer than 16 channels" in printed
        assert "of the multiply-accumulates in INT8; mask AP" in printed
        assert REPORT_KEY in {item.key for item in onnx.load(result).metadata_props}
        assert main(["inspect", str(result)]) == 0
        assert "36 frames; mask AP" in capsys.readouterr().out

    def test_ctrl_c_leaves_nothing(
        self, tmp_path: Path, model_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
    ):
        def interrupted(items: Iterable[Any], title: str, count: int | None) -> Iterable[Any]:
            for item in items:
                if title == "gate":
                    raise KeyboardInterrupt
                yield item

        monkeypatch.setattr(progress, "bar", interrupted)
        folder = tmp_path / "results"
        arguments = ["--calibration", str(images), "--method", METHOD, "-o", str(folder / "int8.onnx")]
        assert main(["quantize", str(model_path), *arguments]) == 130
        assert list(folder.iterdir()) == []

    @pytest.mark.parametrize(("made", "message"), [
        ("empty folder", "expected files ending in"),
        ("nothing", "does not exist"),
    ])  # fmt: skip
    def test_images_that_are_not_there(
        self, tmp_path: Path, model_path: Path, capsys: pytest.CaptureFixture[str], made: str, message: str
    ):
        folder = tmp_path / "images"
        if made == "empty folder":
            folder.mkdir()
        arguments = ["--calibration", str(folder), "-o", str(tmp_path / "int8.onnx")]
        assert main(["quantize", str(model_path), *arguments]) == 1
        assert message in capsys.readouterr().err
        assert not (tmp_path / "int8.onnx").exists()

    def test_a_folder_is_no_name_for_the_result(
        self, tmp_path: Path, model_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
    ):
        assert main(["quantize", str(model_path), "--calibration", str(images), "-o", str(tmp_path)]) == 1
        assert f"{tmp_path}: is a folder" in capsys.readouterr().err

    def test_the_result_may_not_replace_the_source(
        self, model_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
    ):
        assert main(["quantize", str(model_path), "--calibration", str(images), "-o", str(model_path)]) == 1
        assert "this is the source itself" in capsys.readouterr().err


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the model and the images of ../shared/data")
def test_the_real_model_has_nearly_all_of_its_work_in_int8(tmp_path: Path):
    """One image's accuracy proves nothing, so this is about size and loading; docs/accuracy.md has the rest."""
    canonical = tmp_path / "model.onnx"
    assert main(["prepare", str(DATA / "models" / "yolov8n-seg-640.onnx"), "-o", str(canonical)]) == 0
    frames = gather([DATA / "images" / "street"], limit=4)
    loose = QuantizeOptions(Budget(agreement=AgreementBudget(0.0, 10.0)), method="percentile 99.999")
    done = quantize(onnx.load(canonical), frames, loose)
    assert done.report.int8_share > 0.9
    assert len(done.model.SerializeToString()) < 0.4 * canonical.stat().st_size
    assert done.report.precision.mask_iou is not None
    assert done.report.precision.mask_iou > 0.85


def test_a_verdict_on_few_frames_is_called_weak():
    few = Precision(frames=10, instances=42, mask_iou=0.99, false_negatives=0, false_positives=0, class_confusions=0)
    assert "weak proof: 42 instances in 10 held-back frames" in few.caution
    assert not replace(few, frames=40, instances=400).caution
    semantic = replace(few, instances=0, mask_iou=None, class_map_share=0.99)
    assert semantic.caution.startswith("weak proof: 10 held-back frames (better 16); give more frames")
    assert not replace(semantic, frames=16).caution
