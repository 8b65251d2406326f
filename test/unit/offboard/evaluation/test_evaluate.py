"""`seg_perception evaluate` end to end, on models whose right answers are known."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import yaml
from colour_model import FAULT_COLOUR, NAMES, Scene, paint_scene, save_canonical_colour_model
from panoptic_model import AIR, GROUND, save_panoptic_model
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from seg_perception.cli.main import main
from seg_perception.core.contract import METADATA_KEY
from seg_perception.core.errors import IncompleteBagError, SourceError
from seg_perception.offboard.evaluation.coco import read_annotations
from seg_perception.offboard.evaluation.datasets import open_dataset
from seg_perception.offboard.evaluation.datasets.bag import read_bag
from seg_perception.offboard.evaluation.datasets.labelled import NO_STUFF, LabelledSet, StuffMap
from seg_perception.offboard.evaluation.evaluate import EvaluateOptions, evaluate
from seg_perception.offboard.evaluation.results import COCO_STATS, Evaluation
from seg_perception.offboard.evaluation.scheme import Subject
from seg_perception.offboard.metrics.masks import encode_rle
from seg_perception.offboard.streetworld.bag import write_bag
from seg_perception.offboard.streetworld.world import StreetWorld, WorldOptions
from seg_perception.onboard.pipeline.opening import ModelChoice, open_segmenter

ENGINES = Path(__file__).resolve().parents[4] / "engines"
NO_FRAMES = ("--report-frames", "0")
SIZE = (320, 192)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_canonical_colour_model(tmp_path_factory.mktemp("model") / "colours.onnx")


def random_scenes(count: int = 12) -> list[Scene]:
    """Rectangles of all sizes in cells of their own, so that none touches another of its class; some cover another."""
    random = np.random.default_rng(4)
    scenes = []
    for number in range(count):
        if number % 4 == 3:
            scenes.append(paint_scene(*SIZE, [(10, 10, 200, 180, number % 3), (230, 20, 300, 60, 3)]))
            continue
        rectangles = []
        for place in range(6):
            left, top = place % 3 * 104 + 2, place // 3 * 94 + 2
            width, height = (int(side) for side in random.integers(9, (98, 88)))
            label = int(random.integers(0, 4))
            if random.random() < 0.8:
                rectangles.append((left, top, left + width, top + height, label))
            if min(width, height) > 40:
                rectangles.append((left + 10, top + 10, left + 36, top + 36, (label + 1) % 4))
        scenes.append(paint_scene(*SIZE, rectangles))
    return scenes


def write_set(
    folder: Path, scenes: list[Scene], names: tuple[str, ...] = NAMES, crowds: bool = False, **facts: list[Any]
) -> Path:
    """A labelled set; the truth of some rectangles is a little next to them, so that masks overlap more or less."""
    (folder / "images").mkdir(parents=True)
    content: dict[str, Any] = {"images": [], "annotations": []}
    content["categories"] = [{"id": 5 * (label + 1), "name": name} for label, name in enumerate(names)]
    for number, scene in enumerate(scenes, 1):
        assert cv2.imwrite(str(folder / "images" / f"{number}.png"), scene.image[..., ::-1])
        more = {name: values[number - 1] for name, values in facts.items()}
        content["images"].append(
            {"id": number, "file_name": f"{number}.png", "width": SIZE[0], "height": SIZE[1], **more}
        )
        for place, label in enumerate(scene.labels.tolist()):
            mask = np.roll(scene.instance_map == place + 1, place % 4 * 2, axis=1)
            if mask.any():
                rows, columns = np.nonzero(mask)
                box = [int(columns.min()), int(rows.min()), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1]
                content["annotations"].append({
                    "id": len(content["annotations"]), "image_id": number, "category_id": 5 * (label + 1),
                    "bbox": box, "area": int(mask.sum()), "iscrowd": int(crowds and place == 3),
                    "segmentation": encode_rle(mask),
                })  # fmt: skip
    path = folder / "instances.json"
    path.write_text(json.dumps(content))
    return path


def run(*arguments: object) -> int:
    return main(["evaluate", "--backend", "onnxruntime", "--threads", "1", *map(str, arguments)])


def read(folder: Path) -> dict[str, Any]:
    """The written evaluation; a constant such as NaN is no JSON."""

    def refuse(text: str) -> None:
        raise AssertionError(text)

    found: dict[str, Any] = json.loads((folder / "evaluation.json").read_text(), parse_constant=refuse)
    return found


def numbers(stats: dict[str, float | None]) -> list[float]:
    """In the order of pycocotools, and as it writes what cannot be told."""
    values = [stats[name] for name in COCO_STATS]
    return [-1.0 if value is None else value for value in values]


def judged(folder: Path, name: str, kind: str, file: str = "truth.json") -> list[float]:
    """What pycocotools itself says of the files that were written."""
    truth = COCO(str(folder / file))
    judge = COCOeval(truth, truth.loadRes(str(folder / f"{name}.results.json")), kind)
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    return judge.stats.tolist()


@pytest.mark.parametrize("names", [NAMES, ("pedestrian", "truck", "traffic sign", "traffic light")])
def test_average_precision_is_that_of_pycocotools(
    model: Path, names: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Of the categories of the set where the model knows them, else of road groups; all sizes."""
    labels, out = write_set(tmp_path, random_scenes(), names, crowds=True), tmp_path / "out"
    assert run("--model", model, "--dataset", labels, "-o", out) == 0
    printed = capsys.readouterr().out
    found = read(out)
    assert found["by_categories"] == (names == NAMES)
    for coco in found["scores"][0]["coco"]:
        theirs = judged(out, "colours", {"mask": "segm", "box": "bbox"}[coco["kind"]])
        assert numbers(coco["stats"]) == pytest.approx(theirs, abs=1e-6)
        # Something is missed, something found, of every size.
        assert all(0 < value < 1 for value in theirs[:5])
        assert theirs[5] > 0
        assert f"{theirs[0]:.4f}  {theirs[1]:.4f}" in printed
    everything = next(each for each in found["strata"] if each["dimension"] == "all")["scores"][0]
    if names != NAMES:
        assert everything["mask_ap"] == pytest.approx(found["scores"][0]["coco"][0]["stats"]["AP"], abs=1e-6)
        assert everything["box_ap50"] == pytest.approx(found["scores"][0]["coco"][1]["stats"]["AP50"], abs=1e-6)
    assert (out / "report.html").stat().st_size > 10_000


def test_groups_and_surroundings_are_parted(model: Path, tmp_path: Path):
    scenes = random_scenes()
    weather = ["rain" if number % 2 else "clear" for number in range(len(scenes))]
    labels, out = write_set(tmp_path, scenes, weather=weather), tmp_path / "out"
    assert run("--model", model, "--dataset", labels, "-o", out) == 0
    found = read(out)
    table: dict[str, dict[str, Any]] = {}
    for each in found["strata"]:
        table.setdefault(each["dimension"], {})[each["name"]] = each
    objects = table["all"]["all"]["objects"]
    for dimension in ("road group", "size", "visible part", "crowding", "weather"):
        assert sum(each["objects"] for each in table[dimension].values()) == objects, dimension
        assert len(table[dimension]) > 1
    assert "distance" not in table
    # Images in clear weather score as a set of nothing else does.
    dry = write_set(tmp_path / "dry", scenes[::2])
    assert run("--model", model, "--dataset", dry, "-o", tmp_path / "dry_out") == 0
    alone = next(each for each in read(tmp_path / "dry_out")["strata"] if each["dimension"] == "all")
    assert alone == {**table["weather"]["clear"], "dimension": "all", "name": "all"}
    # One road group is one class.
    sign = table["road group"]["traffic_sign"]["scores"][0]
    assert sign["mask_ap"] == pytest.approx(found["scores"][0]["coco"][0]["per_category"]["stop sign"])


def test_a_model_that_finds_less_is_compared(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The second model is a fifth of the first in size: small rectangles are lost, and their frames are shown."""
    small = save_canonical_colour_model(tmp_path / "small.onnx", width=64, height=64)
    labels, out = write_set(tmp_path, random_scenes()), tmp_path / "out"
    assert run("--model", model, small, "--dataset", labels, "-o", out, "--report-frames", "2") == 0
    found = read(out)
    assert [each["name"] for each in found["models"]] == ["colours", "small"]
    (comparison,) = found["comparisons"]
    gain = comparison["differences"]["mask"]["all"]
    stats = [each["coco"][0]["stats"]["AP"] for each in found["scores"]]
    assert gain["value"] == pytest.approx(stats[1] - stats[0])
    assert gain["low"] <= gain["value"] <= gain["high"] < 0
    assert comparison["agreement"]["missed"] > 0
    kinds = [each["kind"] for each in found["gallery"]]
    assert kinds == ["best", "best", "worst", "worst", "changed", "changed"]
    best, worst = found["gallery"][0]["scores"][0], found["gallery"][2]["scores"][0]
    assert best > worst
    assert "small against colours: " in found["gallery"][4]["words"]
    assert "small against colours: points of AP gained" in capsys.readouterr().out
    for each in found["scores"]:
        stages = each["throughput"]["stages"]
        assert {"letterbox", "model", "paint", "total"} <= set(stages)
        assert stages["total"]["p50"] <= stages["total"]["p99"] <= stages["total"]["largest"]
        assert len(each["throughput"]["samples_ms"]) == found["data"]["frames"] == 12


def test_models_with_other_classes_meet_in_road_groups(model: Path, tmp_path: Path):
    labels, out = write_set(tmp_path, random_scenes(3)), tmp_path / "out"
    assert run("--model", ENGINES / "street-nano.onnx", model, "--dataset", labels, "-o", out, *NO_FRAMES) == 0
    found = read(out)
    assert not found["by_categories"]
    assert found["gallery"] == []
    for each in found["models"]:
        assert set(each["group_names"]) == {"pedestrian", "vehicle", "traffic_sign", "traffic_light"}
        assert judged(out, each["name"], "segm")[0] >= 0
    (comparison,) = found["comparisons"]
    # What one finds of road users, signs and lights is new to the other, who has never seen rectangles.
    assert comparison["agreement"]["extra"] > comparison["agreement"]["matched"]
    assert comparison["differences"]["mask"]["all"]["value"] > 0.1


def test_what_cannot_be_read_is_named_and_counted(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    labels, out = write_set(tmp_path, random_scenes(4)), tmp_path / "out"
    (tmp_path / "images" / "1.png").write_bytes(b"no image")
    (tmp_path / "images" / "2.png").unlink()
    assert cv2.imwrite(str(tmp_path / "images" / "3.png"), np.zeros((10, 10, 3), np.uint8))
    assert run("--model", model, "--dataset", labels, "-o", out) == 0
    printed = capsys.readouterr().out
    assert "missing: 1 images, such as 2.png" in printed
    data = read(out)["data"]
    assert data["frames"] == 1
    assert [Path(each.split(":")[0]).name for each in data["unreadable"]] == ["1.png", "3.png"]
    assert {each["image_id"] for each in json.loads((out / "colours.results.json").read_text())} == {4}
    (tmp_path / "images" / "4.png").write_bytes(b"no image")
    assert run("--model", model, "--dataset", labels, "-o", out) == 1
    assert "not one could be: " in capsys.readouterr().err


def test_polygons_of_two_corners_and_empty_fields_are_no_obstacle(model: Path, tmp_path: Path):
    labels, out = write_set(tmp_path, random_scenes(2)), tmp_path / "out"
    content = json.loads(labels.read_text())
    for annotation, segmentation in zip(
        content["annotations"], ([], [[]], [[10, 10, 40, 40]], [[1, 2], [10, 10, 40, 10, 40, 40]]), strict=False
    ):
        annotation |= {"segmentation": segmentation, "track_id": None, "distance": None, "area": None, "iscrowd": None}
    labels.write_text(json.dumps(content))
    assert run("--model", model, "--dataset", labels, "-o", out, *NO_FRAMES) == 0
    found = read(out)
    assert found["data"]["without_mask"] == 3
    for coco in found["scores"][0]["coco"]:
        file, kind = {"mask": ("truth_masks.json", "segm"), "box": ("truth.json", "bbox")}[coco["kind"]]
        assert numbers(coco["stats"]) == pytest.approx(judged(out, "colours", kind, file), abs=1e-9)


def without_masks(labels: Path, chosen: Callable[[int], bool]) -> int:
    """Take the masks of some annotations away, each in another way that tools have; returns how many."""
    content = json.loads(labels.read_text())
    empty: list[Any] = [[], [[]], [[10, 10, 40, 40]], [[9000, 0, 9100, 0, 9100, 50]], {"size": [], "counts": []}, None]
    sizes = {each["id"]: [each["height"], each["width"]] for each in content["images"]}
    rows = [each for place, each in enumerate(content["annotations"]) if chosen(place)]
    for place, each in enumerate(rows):
        size = sizes[each["image_id"]]
        each["segmentation"] = empty[place % len(empty)]
        if isinstance(each["segmentation"], dict):
            each["segmentation"] = {"size": size, "counts": [size[0] * size[1]]}
    labels.write_text(json.dumps(content))
    return len(rows)


def test_objects_without_a_mask_are_ignored_by_mask_metrics_and_counted(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Neither to be found nor wrong when found: nothing that finds them is an extra, and boxes are judged as before."""
    scenes = random_scenes(4)
    for name, chosen in (("all", lambda _: False), ("half", lambda place: place % 2), ("none", lambda _: True)):
        boxes = without_masks(write_set(tmp_path / name, scenes), chosen)
        labels, out = tmp_path / name / "instances.json", tmp_path / f"out-{name}"
        assert run("--model", model, "--dataset", labels, "-o", out, "--report-frames", "1") == 0
        printed = capsys.readouterr().out
        assert (f"not counted: {boxes} objects have no mask" in printed) == bool(boxes)
        assert read(out)["data"]["without_mask"] == boxes
        assert (out / "truth_masks.json").exists() == bool(boxes)
    whole, half, none = (read(tmp_path / f"out-{name}") for name in ("all", "half", "none"))
    mask, box = ([each["scores"][0]["coco"][kind]["stats"] for each in (whole, half, none)] for kind in (0, 1))
    assert numbers(box[0]) == numbers(box[1]) == numbers(box[2])
    means = [found["scores"][0]["panoptic"]["means"]["all"] for found in (whole, half, none)]
    extra, matched = ([each[name] for each in means] for name in ("extra", "matched"))
    assert extra[1] <= extra[0]
    assert extra[2] <= extra[0]
    assert 0 < matched[1] < matched[0]
    assert mask[1]["AP50"] >= mask[0]["AP50"] - 0.2
    # Nothing is to be found as a mask: no number, rather than a bad one.
    assert mask[2]["AP"] is None
    assert matched[2] == 0
    group = {(each["dimension"], each["name"]): each for each in none["strata"]}["all", "all"]
    assert group["objects"] > 0
    assert group["scores"][0]["mask_ap"] is None
    assert group["scores"][0]["box_ap"] == pytest.approx(
        {(each["dimension"], each["name"]): each for each in whole["strata"]}["all", "all"]["scores"][0]["box_ap"]
    )


@pytest.mark.parametrize(
    ("key", "change", "expected"),
    [
        ("images", {"id": 1}, "`images` number 1: the id 1 comes twice"),
        ("categories", {"id": 5}, "`categories` number 1: the id 5 comes twice"),
        ("annotations", {"bbox": [1, 2]}, "expected `bbox` as 4 numbers"),
        ("annotations", {"area": "large"}, "expected `area` as int or float"),
    ],
)
def test_odd_entries_of_an_annotation_file_are_named(
    tmp_path: Path, key: str, change: dict[str, Any], expected: str
):  # fmt: skip
    labels = write_set(tmp_path, random_scenes(2))
    content = json.loads(labels.read_text())
    content[key][1] |= change
    labels.write_text(json.dumps(content))
    with pytest.raises(SourceError, match=expected):
        read_annotations(labels)


def evaluated(path: Path, labelled: LabelledSet, folder: Path) -> Evaluation:
    with closing(open_segmenter(ModelChoice(str(path)), any_classes=True)) as segmenter:
        return evaluate([Subject("m", str(path), segmenter, segmenter.table)], labelled, EvaluateOptions(), folder)


def panoptic_set(folder: Path, names: tuple[str, ...] = NAMES) -> tuple[LabelledSet, list[Scene]]:
    """Scenes with ground below and air above, as the truth says, too."""
    scenes = random_scenes(3)
    labels = write_set(folder, scenes, names)
    rows = np.arange(SIZE[1])[:, None] * np.ones((1, SIZE[0]))
    stuff = np.where(rows < SIZE[1] // 2, 1, 0).astype(np.uint8)
    void = np.zeros(stuff.shape, bool)
    void[:4] = True
    plain = open_dataset(labels)
    labelled = LabelledSet(
        plain.kind, plain.labels, plain.source, (), None, ("ground", "air"),
        lambda _: StuffMap(np.where(void, NO_STUFF, stuff).astype(np.uint8), void),
    )  # fmt: skip
    return labelled, scenes


def test_models_with_class_maps_have_stuff(tmp_path: Path):
    path = save_panoptic_model(tmp_path / "panoptic.onnx")
    spec = json.loads(next(each.value for each in onnx.load(path).metadata_props if each.key == METADATA_KEY))
    assert {spec["class_names"][GROUND], spec["class_names"][AIR]} == {"ground", "air"}
    labelled, scenes = panoptic_set(tmp_path / "set")
    panoptic = evaluated(path, labelled, tmp_path).scores[0].panoptic
    assert {"things", "stuff", "all"} == set(panoptic.means)
    for name in ("ground", "air"):
        assert panoptic.per_class[name].matched == len(scenes)
        assert panoptic.per_class[name].segmentation > 0.8
    assert panoptic.means["stuff"].quality == pytest.approx(
        (panoptic.per_class["ground"].quality + panoptic.per_class["air"].quality) / 2
    )
    assert 0 < panoptic.means["things"].quality < 1
    # Of a set with other names for the same things only road groups can be told.
    other, _ = panoptic_set(tmp_path / "other", ("pedestrian", "truck", "traffic sign", "traffic light"))
    by_groups = evaluated(path, other, tmp_path).scores[0].panoptic
    assert set(by_groups.means) == {"all"}
    assert by_groups.means["all"].matched == panoptic.means["things"].matched


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drive") / "drive"
    world = StreetWorld(WorldOptions(8, 5, 320, 192))
    write_bag(folder, world.camera, world.shots())
    return folder


def test_a_bag_that_gives_fewer_frames_than_it_counts_is_an_error(
    drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    bag = shutil.copytree(drive, tmp_path / "drive")
    about = yaml.safe_load((bag / "metadata.yaml").read_text())
    for topic in about["rosbag2_bagfile_information"]["topics_with_message_count"]:
        topic["message_count"] += 3
    (bag / "metadata.yaml").write_text(yaml.safe_dump(about))
    assert run("--model", ENGINES / "street-nano.onnx", "--bag", bag, "-o", tmp_path / "out") == 1
    assert "metadata.yaml counts 11 messages, the files hold 8" in capsys.readouterr().out


TRUTH_TOPICS = [("/ground_truth/instance_map",), ("/ground_truth/detections",), ("/ground_truth/",)]


@pytest.mark.parametrize("topics", TRUTH_TOPICS)
def test_truth_that_a_bag_lost_is_named_though_all_images_are_there(
    drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], topics: tuple[str, ...]
):
    bag = shutil.copytree(drive, tmp_path / "drive")
    about = yaml.safe_load((bag / "metadata.yaml").read_text())
    counted = []
    for topic in about["rosbag2_bagfile_information"]["topics_with_message_count"]:
        name = topic["topic_metadata"]["name"]
        if name.startswith(topics):
            topic["message_count"] += 2
            counted.append(name)
    (bag / "metadata.yaml").write_text(yaml.safe_dump(about))
    assert run("--model", ENGINES / "street-nano.onnx", "--bag", bag, "-o", tmp_path / "out") == 1
    output = capsys.readouterr().out
    for name in counted:
        assert output.count(f"{name}: metadata.yaml counts 10 messages, the files hold 8") == 1


def test_what_images_and_truth_lost_together_is_named_once(drive: Path, tmp_path: Path):
    bag = shutil.copytree(drive, tmp_path / "drive")
    about = yaml.safe_load((bag / "metadata.yaml").read_text())
    about["rosbag2_bagfile_information"]["relative_file_paths"].append("gone.mcap")
    (bag / "metadata.yaml").write_text(yaml.safe_dump(about))
    source = read_bag(bag).source
    assert len(list(source)) == 8
    failures = [str(failure) for failure in source.failures if isinstance(failure, IncompleteBagError)]
    assert len([failure for failure in failures if "gone.mcap" in failure]) == 1


def test_a_bag_is_a_sequence(drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    models = [ENGINES / f"street-nano{suffix}.onnx" for suffix in ("", "-int8")]
    assert run("--model", models[0], "--model", models[1], "--bag", drive, "-o", tmp_path) == 0
    found = read(tmp_path)
    assert (found["data"]["kind"], found["data"]["frames"], found["data"]["sequences"]) == ("bag", 8, 1)
    for name, each in zip(("street-nano", "street-nano-int8"), found["scores"], strict=True):
        tracks = each["tracking"]["all"]
        assert 0 < tracks["hota"] < 1
        # Tracks go on from frame to frame.
        assert tracks["reported_tracks"] < tracks["reported"] / 2
        assert judged(tmp_path, name, "segm") == pytest.approx(numbers(each["coco"][0]["stats"]), abs=1e-6)
    assert found["comparisons"][0]["agreement"]["mean_iou"] > 0.8
    # Frames of a drive look alike: one of each kind is enough.
    assert [each["kind"] for each in found["gallery"]] == ["best", "worst", "changed"]
    assert "HOTA" in capsys.readouterr().out


def test_errors_say_what_was_expected(model: Path, drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    labels = write_set(tmp_path / "set", random_scenes(2))
    other = write_set(tmp_path / "other", random_scenes(2), ("cat", "dog", "sofa", "fork"))
    for arguments, expected in (
        (["--dataset", tmp_path / "nothing.json"], "nothing.json: does not exist"),
        (["--dataset", labels, "--truth", "/truth"], "--truth: expected only with --bag"),
        (["--bag", drive, "--images", tmp_path], "--images: expected only with --dataset"),
        (["--bag", drive, "--truth", "/elsewhere"], "name it with --truth"),
        (["--dataset", other], "expected classes in common"),
        (["--dataset", labels, "--score", "0"], "score: expected above 0"),
    ):
        assert run("--model", model, *arguments, "-o", tmp_path / "out") == 1
        assert expected in capsys.readouterr().err


def test_a_frame_for_which_a_model_gives_nan_is_left_out_of_all_models_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Every number is over the frames that all models gave something for, as without that frame."""
    good = save_canonical_colour_model(tmp_path / "good.onnx")
    bad = save_canonical_colour_model(tmp_path / "bad.onnx", fault="predictions")
    scenes = random_scenes(4)
    broken = paint_scene(*SIZE, [])
    broken.image[:32, :32] = FAULT_COLOUR
    labels = write_set(tmp_path / "set", [scenes[0], broken, *scenes[1:]])
    content = json.loads(labels.read_text())
    out = tmp_path / "out"
    assert run("--model", good, bad, "--dataset", labels, "-o", out, "--report-frames", "1") == 0
    printed = capsys.readouterr().out
    found = read(out)
    assert found["data"]["frames"] == 4
    (words,) = found["data"]["without_output"]
    assert "bad: frame 2.png" in words
    assert "not counted: 1 frames are left out because a model gave NaN or infinity" in printed
    assert f"skipped: {words}" in printed
    assert "1 frames are left out because a model gave NaN" in (out / "report.html").read_text()
    content["images"] = [each for each in content["images"] if each["id"] != 2]
    content["annotations"] = [each for each in content["annotations"] if each["image_id"] != 2]
    labels.write_text(json.dumps(content))
    assert run("--model", good, bad, "--dataset", labels, "-o", tmp_path / "without", "--report-frames", "1") == 0
    capsys.readouterr()
    for ours, theirs in zip(found["scores"], read(tmp_path / "without")["scores"], strict=True):
        assert ours["coco"] == theirs["coco"]
        assert ours["panoptic"] == theirs["panoptic"]
    content["images"] = [{"id": 2, "file_name": "2.png", "width": SIZE[0], "height": SIZE[1]}]
    content["annotations"] = []
    labels.write_text(json.dumps(content))
    assert run("--model", good, bad, "--dataset", labels, "-o", tmp_path / "nothing") == 1
    assert "bad: frame 2.png" in capsys.readouterr().err
