"""What people changed is counted, and what they leave is what training takes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from seg_perception.cli.main import main
from seg_perception.core.errors import SourceError
from seg_perception.offboard.evaluation.coco import CocoSet
from seg_perception.offboard.label.coco import coco_bytes
from seg_perception.offboard.label.cvat import cvat_bytes
from seg_perception.offboard.label.labelme import labelme_bytes
from seg_perception.offboard.label.records import POLYGONS, Category, LabelledFrame, LabelledObject, MaskStyle
from seg_perception.offboard.label.review import review
from seg_perception.offboard.label.reviewed import read_reviewed
from seg_perception.offboard.metrics.compact import CompactMask

WIDTH, HEIGHT = 120, 80
NAMES = ("pedestrian", "vehicle", "traffic_sign", "traffic_light")
CATEGORIES = [Category(number, name, name) for number, name in enumerate(NAMES, 1)]


def thing(category: str, x: int, y: int, w: int = 20, h: int = 12, track: int = 0) -> LabelledObject:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y : y + h, x : x + w] = True
    return LabelledObject(category, CompactMask.of(mask), 0.5, track)


def frame(name: str, *objects: LabelledObject) -> LabelledFrame:
    return LabelledFrame(name, WIDTH, HEIGHT, objects, "drive", 0, "front", 77, "rain")


BEFORE = [
    frame(
        "a.jpg",
        thing("vehicle", 5, 5, track=3),
        thing("vehicle", 40, 5, track=4),
        thing("vehicle", 75, 5, track=5),
        thing("pedestrian", 5, 40, 10, 30, track=6),
        thing("traffic_sign", 60, 40, track=7),
    ),
    frame("b.jpg", thing("vehicle", 5, 5)),
    frame("c.jpg"),
]
# The first vehicle stays but for a pixel of its outline, the second is drawn smaller, the third is gone, the pedestrian
# is a sign, the sign stays, and a light is new; b comes back empty, c not at all.
AFTER = [
    frame(
        "a.jpg",
        thing("traffic_light", 100, 60, 8, 16),
        thing("vehicle", 5, 6, 20, 11),
        thing("vehicle", 40, 5, 14, 12),
        thing("traffic_sign", 5, 40, 10, 30),
        thing("traffic_sign", 60, 40),
    ),
    frame("b.jpg"),
]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "dataset"
    (folder / "images").mkdir(parents=True)
    for each in BEFORE:
        assert cv2.imwrite(str(folder / "images" / each.file_name), np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    (folder / "instances.json").write_bytes(coco_bytes(BEFORE, CATEGORIES, MaskStyle()))
    return folder


def in_coco(folder: Path) -> Path:
    path = folder / "reviewed.json"
    path.write_bytes(coco_bytes(AFTER, CATEGORIES, MaskStyle(POLYGONS, 0)))
    return path


def in_cvat(folder: Path) -> Path:
    path = folder / "annotations.xml"
    path.write_bytes(
        cvat_bytes([replace(each, file_name=f"task/{each.file_name}") for each in AFTER], CATEGORIES, MaskStyle())
    )
    return path


def in_labelme(folder: Path) -> Path:
    path = folder / "labelme"
    path.mkdir()
    for each in AFTER:
        (path / f"{each.name}.json").write_bytes(labelme_bytes(each, MaskStyle(POLYGONS, 0), "..\\images"))
    return path


@pytest.mark.parametrize("written", [in_coco, in_cvat, in_labelme])
def test_what_people_changed_is_counted(tmp_path: Path, dataset: Path, written):
    found = review(written(tmp_path), dataset)
    groups = {each.group: each for each in found.groups}
    counts = {
        name: (each.labels, each.reviewed, each.matched, each.unchanged, each.relabelled, each.removed, each.added)
        for name, each in groups.items()
    }
    assert counts == {
        "": (6, 5, 3, 2, 1, 2, 1),
        "pedestrian": (1, 0, 0, 0, 1, 0, 0),
        "vehicle": (4, 2, 2, 1, 0, 2, 0),
        "traffic_sign": (1, 2, 1, 1, 0, 0, 0),
        "traffic_light": (0, 1, 0, 0, 0, 0, 1),
    }
    assert groups["vehicle"].mean_iou == pytest.approx((11 / 12 + 14 / 20) / 2)
    assert groups["traffic_sign"].mean_boundary == 1.0
    assert groups[""].kept == pytest.approx(2 / 6)
    assert found.unreviewed == ("c.jpg",)
    assert [each.changes for each in found.frames] == pytest.approx([3 + 1 / 12 + 6 / 20, 1])


def test_what_is_left_is_what_training_takes(tmp_path: Path, dataset: Path, capsys: pytest.CaptureFixture[str]):
    result = tmp_path / "result"
    assert main(["review", str(in_coco(tmp_path)), "--against", str(dataset), "-o", str(result)]) == 0
    told = capsys.readouterr().out
    assert "1 images did not come back" in told
    assert f"make train DATA={result / 'instances.json'} IMAGES={dataset / 'images'}" in told
    labelled = CocoSet.load(result / "instances.json", dataset / "images").by_group()
    assert [image.path.name for image in labelled.images] == ["a.jpg", "b.jpg"]
    annotations = labelled.annotations["annotations"]
    assert [each["category_id"] for each in annotations] == [4, 2, 2, 3, 3]
    # Tracks of what was kept; nothing that only a model has.
    assert [each.get("track_id") for each in annotations] == [None, 3, 4, None, 7]
    assert not any("score" in each for each in annotations)
    image = labelled.annotations["images"][0]
    assert (image["camera"], image["stamp_ns"], image["weather"]) == ("front", 77, "rain")
    written = json.loads((result / "agreement.json").read_text())
    assert written["groups"][0] == {
        "group": "all", "labels": 6, "reviewed": 5, "matched": 3, "unchanged": 2, "relabelled": 1, "removed": 2,
        "added": 1, "kept": pytest.approx(2 / 6), "mean_iou": pytest.approx(0.8722, abs=1e-4),
        "mean_boundary": pytest.approx(written["groups"][0]["mean_boundary"]),
    }  # fmt: skip
    assert written["groups"][-1]["mean_iou"] is None
    page = (result / "agreement.html").read_text()
    assert page.count('<figure class="layer') == 4
    assert "33.3 % of 6 labels" in page


def test_labels_are_not_written_over(tmp_path: Path, dataset: Path, capsys: pytest.CaptureFixture[str]):
    before = (dataset / "instances.json").read_bytes()
    assert main(["review", str(in_coco(tmp_path)), "--against", str(dataset), "-o", f"{tmp_path}/x/../dataset"]) == 1
    assert "would be written over" in capsys.readouterr().err
    assert (dataset / "instances.json").read_bytes() == before


def test_what_tools_do_not_fill_in_is_not_known(tmp_path: Path):
    """A shape that is new in CVAT comes with the attributes' default values, and other tools write null."""
    image = {"id": 7, "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT, "stamp_ns": None, "weather": None}
    new = {"image_id": 7, "category_id": 2, "bbox": [5, 5, 20, 12], "segmentation": [[5, 5, 25, 5, 25, 17, 5, 17]]}
    annotations = [
        {**new, "id": 1, "attributes": {"score": "", "track_id": "0"}},
        {**new, "id": 2, "attributes": {"score": None, "track_id": "7.0"}},
    ]
    path = tmp_path / "coco.json"
    categories = [{"id": 2, "name": "vehicle"}]
    path.write_text(json.dumps({"images": [image], "annotations": annotations, "categories": categories}))
    (read,) = read_reviewed(path).frames
    assert [(each.score, each.track, each.mask.area) for each in read.objects] == [(None, 0, 240), (None, 7, 240)]
    assert (read.stamp_ns, read.weather) == (0, "")


@pytest.mark.parametrize("side", ["1e999", "nan"])
def test_coordinates_that_are_no_numbers_are_refused(tmp_path: Path, side: str):
    shapes = (
        f'<polygon label="vehicle" points="1,1;{side},9;3,20"/>',
        f'<box label="vehicle" xtl="1" ytl="1" xbr="{side}" ybr="5"/>',
    )
    for shape in shapes:
        path = tmp_path / "annotations.xml"
        path.write_text(f'<annotations><image id="0" name="a.jpg" width="90" height="60">{shape}</image></annotations>')
        with pytest.raises(SourceError, match="expected"):
            read_reviewed(path)


def test_finer_classes_become_road_groups_and_unknown_ones_are_refused(tmp_path: Path, dataset: Path):
    def named(name: str) -> Path:
        path = tmp_path / "finer.json"
        path.write_bytes(coco_bytes([frame("b.jpg", thing(name, 5, 5))], [Category(9, name, name)], MaskStyle()))
        return path

    found = review(named("car"), dataset)
    assert (found.groups[0].unchanged, found.renamed) == (1, {"car": "vehicle"})
    with pytest.raises(SourceError, match="got zeppelin; rename them there"):
        review(named("zeppelin"), dataset)


def test_labels_of_other_images_are_refused(tmp_path: Path, dataset: Path):
    def given(*frames: LabelledFrame) -> Path:
        path = tmp_path / "other.json"
        path.write_bytes(coco_bytes(frames, CATEGORIES, MaskStyle()))
        return path

    with pytest.raises(SourceError, match=r"expected images of .* such as a\.jpg, got z\.jpg"):
        review(given(frame("z.jpg")), dataset)
    with pytest.raises(SourceError, match=r"more than one of a\.jpg"):
        read_reviewed(given(frame("a.jpg"), frame("sub/a.jpg")))
    with pytest.raises(SourceError, match="expected 120 x 80 pixels"):
        review(given(LabelledFrame("a.jpg", 60, 40)), dataset)
    found = review(given(frame("z.jpg"), frame("c.jpg")), dataset)
    assert found.foreign == ("z.jpg",)
    for name in ("none.json", "none.xml", "none.zip", "none"):
        with pytest.raises(SourceError, match=name):
            read_reviewed(tmp_path / name)
