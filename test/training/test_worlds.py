"""Worlds for training: what is kept from it is kept from it, and making them can be broken off."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from seg_perception.offboard.streetworld.light import WEATHERS
from training.worlds import SEEN_WEATHERS, Split, make, splits


def test_no_two_parts_share_a_world():
    parts = splits(7600)
    seeds = {name: {world.seed for world in part.worlds()} for name, part in parts.items()}
    assert sum(map(len, seeds.values())) == len(set().union(*seeds.values()))
    assert sum(world.frames // parts["train"].step for world in parts["train"].worlds()) == 7600


def test_training_sees_neither_the_weather_nor_the_designs_of_the_test():
    parts = splits(7600)
    for name in ("train", "validation"):
        assert parts[name].designs == "seen"
        assert set(parts[name].weathers) == set(SEEN_WEATHERS)
    assert parts["unseen"].designs == "unseen"
    assert set(parts["unseen"].weathers) == set(WEATHERS) > set(SEEN_WEATHERS)


def test_worlds_are_made_once_and_again_if_they_were_broken_off(tmp_path: Path):
    split = Split(9000, 3, ("day",), "seen", per_scene=2, step=8)
    broken = tmp_path / "seed_9000_24.partial"
    broken.mkdir()
    (broken / "instances.json").write_text("{", encoding="utf-8")
    (path,) = make(tmp_path, split, 1)
    content = json.loads(path.read_text(encoding="utf-8"))
    assert [image["scene"] for image in content["images"]] == [0, 0, 1]
    assert not broken.exists()
    made = path.stat().st_mtime_ns
    assert make(tmp_path, split, 1) == [path]
    assert path.stat().st_mtime_ns == made
    # The same seed and number of frames, but another world.
    assert make(tmp_path, replace(split, weathers=("fog",)), 1) == [path]
    assert {image["weather"] for image in json.loads(path.read_text(encoding="utf-8"))["images"]} == {"fog"}


@pytest.mark.parametrize(("images", "worlds"), [(1, 1), (200, 1), (201, 2), (7600, 38)])
def test_a_world_has_at_most_200_images(images: int, worlds: int):
    assert len(Split(1, images, ("day",), "all").worlds()) == worlds
