"""Which photographs are learnt from, and what their labels are silent about."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from seg_perception.core.errors import ConfigurationError
from seg_perception.offboard.evaluation.coco import CocoSet
from training.known import unknown_groups
from training.photographs import photographs

COCO = ("person", "bicycle", "car", "motorcycle", "bus", "train", "truck", "traffic light", "stop sign")
WITHOUT_SIGNS = (*COCO[:-1],)


def write(folder: Path, licences: Sequence[int | None], labelled: Sequence[str] = COCO, **more: int) -> Path:
    """A set of small photographs, all with the same file."""
    (folder / "images").mkdir()
    cv2.imwrite(str(folder / "images" / "same.jpg"), np.zeros((8, 8, 3), np.uint8))
    images = [
        {"id": number, "file_name": "same.jpg", "width": 8, "height": 8, "labelled": list(labelled), **more}
        | ({} if licence is None else {"license": licence})
        for number, licence in enumerate(licences, 1)
    ]
    names = [*COCO, "traffic sign"]
    content = {
        "images": images,
        "annotations": [
            {"id": each["id"], "image_id": each["id"], "category_id": names.index("stop sign") + 1, "area": 16,
             "bbox": [0, 0, 4, 4], "iscrowd": 0, "segmentation": [[0, 0, 4, 0, 4, 4, 0, 4]]}
            for each in images
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, 1)],
    }  # fmt: skip
    (folder / "instances.json").write_text(json.dumps(content), encoding="utf-8")
    return folder / "instances.json"


def test_only_photographs_of_free_licences_are_learnt_from_and_some_are_held_back(tmp_path: Path) -> None:
    licences = [1, 2, 3, 4, 5, 6, 7, 8, None] * 40
    learnt, held_back = photographs(write(tmp_path, licences))
    for each in (*learnt.image_ids, *held_back.image_ids):
        assert licences[each - 1] in (4, 5, 7, 8)
    assert not set(learnt.image_ids) & set(held_back.image_ids)
    assert (len(learnt.image_ids), len(held_back.image_ids)) == (100, 60)
    again = photographs(tmp_path / "instances.json")
    assert again[1].image_ids == held_back.image_ids


def test_stop_signs_count_as_signs(tmp_path: Path) -> None:
    learnt, _ = photographs(write(tmp_path, [4] * 200))
    assert {each["category_id"] for each in learnt.by_group().annotations["annotations"]} == {3}


@pytest.mark.parametrize(
    ("labelled", "coco_id", "bits"),
    [
        (COCO, 1, 0),
        (("person",), 1, 0b1110),
        (COCO[:7], 1, 0b1100),
        (WITHOUT_SIGNS, 1, 0b0100),
        (("person", "car"), 1, 0b1110),
        # This one shows street names.
        (COCO, 8762, 0b0100),
    ],
)
def test_a_group_is_known_where_all_its_classes_are_labelled(
    tmp_path: Path, labelled: tuple[str, ...], coco_id: int, bits: int
) -> None:
    learnt, _ = photographs(write(tmp_path, [4] * 200, labelled, coco_id=coco_id))
    assert set(unknown_groups(learnt).values()) == {bits}


def test_sets_that_name_nothing_are_known_completely(tmp_path: Path) -> None:
    path = write(tmp_path, [4])
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["images"][0]["labelled"]
    path.write_text(json.dumps(content), encoding="utf-8")
    assert unknown_groups(CocoSet.load(path)) == {}


def test_too_few_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="at least 120 photographs with `license` 4, 5, 7, 8, got 30"):
        photographs(write(tmp_path, [4] * 30 + [1] * 200))
