"""Labels go into each format and come back as they were."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from seg_perception.core.errors import SourceError
from seg_perception.offboard.label.coco import coco_bytes, read_coco
from seg_perception.offboard.label.cvat import cvat_bytes, cvat_labels, read_cvat
from seg_perception.offboard.label.labelme import labelme_bytes, read_labelme
from seg_perception.offboard.label.records import (
    POLYGONS,
    RLE,
    Category,
    LabelledFrame,
    LabelledObject,
    MaskStyle,
    QaFlag,
    ReadLabels,
    frame_from_json,
    frame_to_json,
)
from seg_perception.offboard.label.reviewed import read_reviewed
from seg_perception.offboard.label.shapes import is_near, polygons_of
from seg_perception.offboard.metrics.compact import CompactMask
from seg_perception.offboard.metrics.segmentations import mask_of_polygons

SIZE = (60, 90)
CATEGORIES = [Category(1, "pedestrian", "pedestrian"), Category(2, "vehicle", "vehicle")]


def blob(seed: int, *, holes: bool = False) -> NDArray[np.bool_]:
    """Some shapes with curves, corners, specks and parts at the image's edge, bool `[H, W]`."""
    random = np.random.default_rng(seed)
    smooth = cv2.GaussianBlur(random.random(SIZE).astype(np.float32), (0, 0), float(random.uniform(0.7, 4)))
    mask = (smooth > np.percentile(smooth, random.uniform(50, 90))).astype(np.uint8)
    if not holes:
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(mask, contours, -1, 1, cv2.FILLED)
    return mask.astype(bool)


def ring() -> NDArray[np.bool_]:
    mask = np.zeros((*SIZE, 1), np.uint8)
    cv2.circle(mask, (40, 30), 20, 1, 8)
    return mask[..., 0] > 0


def frame(*masks: NDArray[np.bool_]) -> LabelledFrame:
    objects = tuple(
        LabelledObject(CATEGORIES[number % 2].name, CompactMask.of(mask), 0.5 + number / 100, number + 7, 0.25)
        for number, mask in enumerate(masks)
    )
    return LabelledFrame("drive_000003.jpg", SIZE[1], SIZE[0], objects, "bags/drive", 3, "left", 12, "rain", "ab",
                         {"every": 3.0}, (QaFlag("gap", 1.0, "not here", (1.0, 2.0, 3.0, 4.0)),))  # fmt: skip


def through_coco(style: MaskStyle, given: LabelledFrame, folder: Path) -> LabelledFrame:
    path = folder / "instances.json"
    path.write_bytes(coco_bytes([given], CATEGORIES, style))
    return read_coco(path).frames[0]


def through_cvat(style: MaskStyle, given: LabelledFrame, folder: Path) -> LabelledFrame:
    return read_cvat(BytesIO(cvat_bytes([given], CATEGORIES, style)), folder).frames[0]


def through_labelme(style: MaskStyle, given: LabelledFrame, folder: Path) -> LabelledFrame:
    (folder / "one.json").write_bytes(labelme_bytes(given, style, "../images"))
    return read_labelme(folder).frames[0]


Format = Callable[[MaskStyle, LabelledFrame, Path], LabelledFrame]
FORMATS = pytest.mark.parametrize("through", [through_coco, through_cvat, through_labelme])


@FORMATS
@pytest.mark.parametrize("form", [RLE, POLYGONS])
def test_labels_come_back(tmp_path: Path, through: Format, form: str):
    given = frame(*(blob(seed) for seed in range(5)), ring())
    found = through(MaskStyle(form), given, tmp_path)
    assert (found.file_name, found.width, found.height) == (given.file_name, given.width, given.height)
    assert [(each.category, each.track) for each in found.objects] == [
        (each.category, each.track) for each in given.objects
    ]
    assert [each.score for each in found.objects] == pytest.approx([each.score for each in given.objects])
    for before, after in zip(given.objects, found.objects, strict=True):
        assert not after.shapeless
        if form == RLE:
            assert np.array_equal(after.mask.full(), before.mask.full())
        assert is_near(after.mask, before.mask, 1)


@pytest.mark.parametrize("through", [through_cvat, through_labelme])
def test_polygons_that_are_not_simplified_are_the_mask(tmp_path: Path, through: Format):
    given = frame(*(blob(seed) for seed in range(5)))
    found = through(MaskStyle(POLYGONS, 0), given, tmp_path)
    for before, after in zip(given.objects, found.objects, strict=True):
        assert np.array_equal(after.mask.full(), before.mask.full())


@pytest.mark.parametrize("seed", range(12))
def test_polygons_leave_the_outline_by_no_more_than_is_allowed(seed: int):
    mask = CompactMask.of(blob(seed))
    exact = polygons_of(mask, 0)
    assert exact is not None
    points = sum(map(len, exact))
    for allowed in (1.0, 3.0):
        simple = polygons_of(mask, allowed)
        assert simple is not None
        assert sum(map(len, simple)) < points
        assert is_near(mask_of_polygons(simple, SIZE), mask, int(allowed))
    # The usual tools draw what is not simplified just as we do.
    drawn = coco_mask.decode(
        coco_mask.merge(coco_mask.frPyObjects([each.reshape(-1).tolist() for each in exact], *SIZE))
    )
    assert np.array_equal(drawn.astype(bool), mask.full())


def test_only_masks_whose_holes_matter_stay_masks():
    assert polygons_of(CompactMask.of(ring()), 1.0) is None
    small = np.zeros(SIZE, bool)
    small[10:30, 10:30] = True
    small[15:17, 12:28] = False
    assert polygons_of(CompactMask.of(small), 1.0) is not None
    assert polygons_of(CompactMask.of(np.zeros(SIZE, bool)), 1.0) == []


@pytest.mark.parametrize("form", [RLE, POLYGONS])
def test_pycocotools_reads_our_file(tmp_path: Path, form: str):
    given = frame(blob(1), ring())
    path = tmp_path / "instances.json"
    path.write_bytes(coco_bytes([given], CATEGORIES, MaskStyle(form, 0)))
    coco = COCO(str(path))
    assert [np.array_equal(coco.annToMask(each), one.mask.full()) for each, one in
            zip(coco.loadAnns(coco.getAnnIds()), given.objects, strict=True)] == [True, True]  # fmt: skip
    image = coco.loadImgs([1])[0]
    assert (image["camera"], image["stamp_ns"], image["source"], image["weather"]) == ("left", 12, "bags/drive", "rain")


def test_a_record_holds_everything():
    given = frame(blob(3), ring())
    text = json.dumps(frame_to_json(given))
    found = frame_from_json(json.loads(text))
    assert json.dumps(frame_to_json(found)) == text
    assert np.array_equal(found.objects[1].mask.full(), ring())
    assert found.concerns == given.concerns


@FORMATS
def test_a_box_without_a_mask_is_a_region_that_training_ignores(tmp_path: Path, through: Format):
    box = np.zeros(SIZE, bool)
    box[5:15, 10:40] = True
    given = LabelledFrame("a.jpg", SIZE[1], SIZE[0], (LabelledObject("vehicle", CompactMask.of(box), shapeless=True),))
    (found,) = through(MaskStyle(), given, tmp_path).objects
    assert found.shapeless
    assert np.array_equal(found.mask.full(), box)


def test_parts_of_an_object_are_one_and_ungrouped_shapes_are_several():
    shape = '<{} label="vehicle" source="manual" occluded="0" {} {}></{}>'
    first, second = 'points="0,0;10,0;10,10;0,10"', 'points="20,0;30,0;30,10;20,10"'

    def objects(group: str) -> int:
        shapes = "".join(shape.format("polygon", points, group, "polygon") for points in (first, second))
        image = f'<image id="0" name="a.jpg" width="90" height="60">{shapes}</image>'
        return len(read_cvat(BytesIO(f"<annotations>{image}</annotations>".encode()), Path("x.xml")).frames[0].objects)

    assert objects('group_id="4"') == 1
    assert objects("") == 2


def test_a_duplicated_shape_is_another_object(tmp_path: Path):
    """LabelMe duplicates a shape with its group."""
    mask = np.zeros(SIZE, bool)
    mask[5:15, 10:40] = True
    content = json.loads(labelme_bytes(frame(mask), MaskStyle(POLYGONS), "../images"))
    (shape,) = content["shapes"]
    content["shapes"].append({**shape, "points": [[x + 35, y + 20] for x, y in shape["points"]]})
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert [each.mask.area for each in read_labelme(tmp_path).frames[0].objects] == [300, 300]


def test_labels_for_a_new_task_of_cvat_are_those_of_the_file():
    names = [each["name"] for each in json.loads(cvat_labels(CATEGORIES))]
    assert names == ["pedestrian", "vehicle"]


@pytest.mark.parametrize(("data", "words"), [
    (b"<annotations", "XML file"),
    (b"<other/>", "its root is <other>"),
    (b"<annotations><track id='0'/></annotations>", "CVAT for images 1.1"),
    (b"<annotations><image id='0' name='a'/></annotations>", "height"),
    (b"<annotations><image id='0' name='a' width='4' height='4'><mask label='v' left='0' top='0' width='2' height='2' "
     b"rle='1, 2'/></image></annotations>", "add up"),
])  # fmt: skip
def test_an_xml_file_of_another_form_is_refused_with_the_reason(data: bytes, words: str):
    with pytest.raises(SourceError, match=words):
        read_cvat(BytesIO(data), Path("x.xml"))


def test_a_folder_without_files_of_labelme_is_refused(tmp_path: Path):
    with pytest.raises(SourceError, match="expected LabelMe's files"):
        read_labelme(tmp_path)
    (tmp_path / "a.json").write_text('{"shapes": []}')
    with pytest.raises(SourceError, match=r"a\.json: expected a file of LabelMe"):
        read_labelme(tmp_path)


def read_xml(body: str, size: str = 'width="400" height="300"') -> ReadLabels:
    data = f'<annotations><image id="0" name="a.jpg" {size}>{body}</image></annotations>'.encode()
    return read_cvat(BytesIO(data), Path("x.xml"))


def side(mask: CompactMask) -> tuple[int, int, int, int]:
    return mask.left, mask.top, mask.right, mask.bottom


def test_a_rotated_box_of_cvat_is_the_region_that_people_see():
    box = '<box label="vehicle" xtl="100" ytl="100" xbr="300" ybr="140" rotation="{}"/>'
    (quarter,), (half,), (eighth,) = (read_xml(box.format(turn)).frames[0].objects for turn in (90, 180, 45))
    assert side(quarter.mask) == (180, 20, 220, 220)
    assert quarter.mask.area == 40 * 200
    assert side(half.mask) == (100, 100, 300, 140)
    # Turned clockwise: from top left to bottom right.
    assert eighth.mask.full()[120 - 60, 200 - 60]
    assert eighth.mask.full()[120 + 60, 200 + 60]
    assert not eighth.mask.full()[120 - 60, 200 + 60]
    assert eighth.mask.area == pytest.approx(40 * 200, rel=0.02)
    assert all(each.shapeless for each in (quarter, half, eighth))


def test_an_ellipse_is_a_mask():
    shape = '<ellipse label="vehicle" cx="200" cy="150" rx="80" ry="30" rotation="{}"/>'
    (flat,), (upright,) = (read_xml(shape.format(turn)).frames[0].objects for turn in (0, 90))
    assert flat.mask.area == pytest.approx(np.pi * 80 * 30, rel=0.01)
    assert side(flat.mask) == (120, 120, 280, 180)
    assert side(upright.mask) == (170, 70, 230, 230)
    assert not flat.shapeless


def test_shapes_of_cvat_that_are_no_region_are_counted_and_named():
    point = '<points label="knee" points="5,5"/>'
    read = read_xml(
        f'<skeleton label="person">{point}</skeleton><skeleton label="person">{point}</skeleton>'
        '<polyline label="lane" points="1,1;5,5"/><cuboid label="vehicle" xtl1="1"/><points label="x" points="1,1"/>'
        '<tag label="night"/><blob label="new"/><polygon label="vehicle" points="10,10;50,10;50,40"/>'
    )
    assert len(read.frames[0].objects) == 1
    assert read.omitted.count == 7
    lines = read.omitted.lines()
    assert lines[0] == "2 x <skeleton>: a skeleton has no area (first: a.jpg)"
    for name in ("polyline", "cuboid", "points", "tag", "blob"):
        assert any(line.startswith(f"1 x <{name}>: ") for line in lines), name


def test_shapes_of_labelme_are_regions_or_counted(tmp_path: Path):
    shapes = [
        {"label": "vehicle", "shape_type": "circle", "points": [[100, 100], [130, 140]]},
        {"label": "vehicle", "shape_type": "line", "points": [[1, 1], [5, 5]]},
        {"label": "vehicle", "shape_type": "point", "points": [[1, 1]]},
        {"label": "vehicle", "shape_type": "oriented_rectangle", "points": [[1, 1], [5, 1], [5, 5], [1, 5]]},
        {"label": "vehicle", "points": [[10, 10], [60, 10], [60, 20], [10, 20]]},  # as the first releases wrote
    ]
    content = {"imagePath": "a.jpg", "imageHeight": 300, "imageWidth": 400, "shapes": shapes}
    (tmp_path / "a.json").write_text(json.dumps(content))
    read = read_labelme(tmp_path)
    circle, polygon = read.frames[0].objects
    assert circle.mask.area == pytest.approx(np.pi * 50**2, rel=0.01)
    assert polygon.mask.area == 500
    assert sorted(line.split(": ")[0] for line in read.omitted.lines()) == [
        "1 x line", "1 x oriented_rectangle", "1 x point",
    ]  # fmt: skip


def test_the_coco_archive_of_cvat_is_read(tmp_path: Path):
    """One file for each subset; keypoints are in a file of their own."""
    square = {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "bbox": [5, 5, 20, 10],
        "segmentation": [[5, 5, 25, 5, 25, 15, 5, 15]],
    }
    path = tmp_path / "export.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("Train", "Validation"):
            image = {"id": 1, "file_name": f"{name}.jpg", "width": 90, "height": 60}
            content = {"images": [image], "annotations": [square], "categories": [{"id": 1, "name": "vehicle"}]}
            archive.writestr(f"annotations/instances_{name}.json", json.dumps(content))
        archive.writestr("annotations/person_keypoints_Train.json", "{}")
        archive.writestr("images/Train.jpg", b"")
    read = read_reviewed(path)
    assert [(each.file_name, len(each.objects)) for each in read.frames] == [("Train.jpg", 1), ("Validation.jpg", 1)]
    assert read.omitted.lines() == (
        "1 x file in the ZIP: no instances of COCO (first: annotations/person_keypoints_Train.json)",
    )
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "unpacked")
    assert len(read_reviewed(tmp_path / "unpacked").frames) == 2
