"""Statistics of annotated sets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from seg_perception.errors import SourceError
from seg_perception.streetworld.statistics import statistics, tables


def annotate(folder: Path, boxes: dict[int, list[tuple[str, list[float]]]]) -> Path:
    names = ["person", "car", "traffic light", "sheep"]
    path = folder / "instances.json"
    content = {
        "images": [{"id": key, "file_name": f"{key}.jpg", "width": 1280, "height": 720} for key in boxes],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names)],
        "annotations": [
            {"image_id": key, "category_id": names.index(name), "bbox": box, "iscrowd": 0}
            for key, rows in boxes.items()
            for name, box in rows
        ],
    }
    path.write_text(json.dumps(content))
    return path


def test_sizes_counts_and_groups_of_street_pictures(tmp_path: Path):
    street = [("car", [0.0, 0.0, 200.0, 50.0]), ("person", [150.0, 0.0, 20.0, 80.0]), ("sheep", [0.0, 0.0, 9.0, 9.0])]
    found = statistics(annotate(tmp_path, {1: street, 2: [("person", [0.0, 0.0, 10.0, 10.0])]}))
    # The second picture has no vehicle, sign or light, and sheep belong to no group.
    assert (found.pictures, found.objects) == (1, 2)
    assert found.groups.tolist() == [0.5, 0.5, 0, 0]
    # At 640 pixels of width the car measures 50 px and the person 20 px.
    assert found.sizes.tolist() == [0, 0, 0.5, 0.5, 0, 0, 0]
    assert found.counts.tolist() == [1, 0, 0, 0, 0]
    # A tenth of the car is covered by the person, and 50 of the person's 80 rows by the car.
    assert found.covers.tolist() == [0, 0.5, 0, 0.5, 0]
    assert "| person" not in tables([found])
    assert "| 32 to 64 | 50 % |" in tables([found])


def test_what_is_hidden_is_told_apart_from_what_is_not_known(tmp_path: Path):
    path = annotate(tmp_path, {1: [("car", [0.0, 0.0, 200.0, 50.0]), ("person", [0.0, 0.0, 20.0, 80.0])]})
    assert statistics(path).hidden is None
    assert "not known" in tables([statistics(path)])
    content = json.loads(path.read_text())
    for annotation, share in zip(content["annotations"], (0.0, 0.3), strict=True):
        annotation["occlusion"] = share
    path.write_text(json.dumps(content))
    found = statistics(path).hidden
    assert found is not None
    assert found.tolist() == [0.5, 0, 0.5, 0, 0]


def test_a_set_without_streets_is_refused(tmp_path: Path):
    with pytest.raises(SourceError, match="found none"):
        statistics(annotate(tmp_path, {1: [("sheep", [0.0, 0.0, 9.0, 9.0])]}))
