"""What is kept from training is not in a world for training, and nothing else is in a world for its test."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from seg_perception.cli.main import main
from seg_perception.core.classes import ROAD_GROUPS
from seg_perception.core.errors import ConfigurationError
from seg_perception.offboard.streetworld.actors.actor import Actor
from seg_perception.offboard.streetworld.actors.people import random_person
from seg_perception.offboard.streetworld.actors.signals import SIGN_KINDS, SignDesign
from seg_perception.offboard.streetworld.designs import DESIGNS, cast, is_unseen
from seg_perception.offboard.streetworld.light import WEATHERS
from seg_perception.offboard.streetworld.scene import random_scene
from seg_perception.offboard.streetworld.truth import CLASS_NAMES
from seg_perception.offboard.streetworld.world import StreetWorld, WorldOptions

OPTIONS = WorldOptions(7, seed=8, width=320, height=192, scene_frames=1)


def actors(designs: str, drives: int = 12) -> list[Actor]:
    """Those of the truth, of some drives of 6 s."""
    scenes = [random_scene(31, number, 6.0, WEATHERS[number % len(WEATHERS)], 1, designs) for number in range(drives)]
    return [actor for scene in scenes for actor in scene.actors if actor.track]


@pytest.fixture(scope="module")
def casts() -> dict[str, list[Actor]]:
    return {designs: actors(designs) for designs in DESIGNS}


def test_seen_worlds_have_no_unseen_design_and_unseen_worlds_no_other(casts: dict[str, list[Actor]]):
    unseen = {name: [is_unseen(actor.design) for actor in group] for name, group in casts.items()}  # type: ignore[arg-type]
    assert not any(unseen["seen"])
    assert all(unseen["unseen"])
    assert 0.05 < np.mean(unseen["all"]) < 0.5


@pytest.mark.parametrize("designs", DESIGNS)
def test_every_class_is_in_each(casts: dict[str, list[Actor]], designs: str):
    found = Counter(actor.class_name for actor in casts[designs])
    assert set(found) == set(CLASS_NAMES)
    assert min(found.values()) >= 3


def test_a_held_out_kind_is_held_out_whatever_else_it_looks_like(casts: dict[str, list[Actor]]):
    """Whole shapes are kept from training, not only some of their colours."""
    signs = {name: {a.design.kind for a in group if isinstance(a.design, SignDesign)} for name, group in casts.items()}
    assert signs["all"] == set(SIGN_KINDS)
    assert signs["seen"] | signs["unseen"] == set(SIGN_KINDS)
    assert not signs["seen"] & signs["unseen"]
    styles = {name: Counter(getattr(a.design, "style", "") for a in group) for name, group in casts.items()}
    for held_out in ("hatchback", "scooter"):
        assert styles["seen"][held_out] == 0
        assert styles["unseen"][held_out] > 0
    # The other styles are in both: held out of them are colours.
    assert {"sedan", "suv", "bus", "motorcycle", "bicycle"} <= set(styles["seen"]) & set(styles["unseen"])


@pytest.mark.parametrize("designs", ["seen", "unseen"])
def test_every_road_group_is_in_the_images(designs: str):
    shots = list(StreetWorld(replace(OPTIONS, designs=designs)).shots())
    groups = Counter(instance.group for shot in shots for instance in shot.truth.instances)
    assert set(groups) == set(ROAD_GROUPS)
    assert min(groups.values()) >= 5


def test_seed_and_designs_make_the_world():
    def image(options: WorldOptions) -> bytes:
        return StreetWorld(options).render(1).frame.data.tobytes()

    worlds = [replace(OPTIONS, designs=designs) for designs in DESIGNS]
    first = [image(options) for options in worlds]
    assert [image(options) for options in worlds] == first
    assert len(set(first)) == len(DESIGNS)


def test_unknown_designs_are_refused():
    with pytest.raises(ConfigurationError, match="expected one of all, seen, unseen; got 'new'"):
        replace(OPTIONS, designs="new")


def test_a_draw_without_choice_ends():
    random = np.random.default_rng(1)
    person = next(p for p in (random_person(random) for _ in range(99)) if not is_unseen(p))
    assert cast("seen", lambda: person) == person
    with pytest.raises(ConfigurationError, match="no unseen design"):
        cast("unseen", lambda: person)


def test_the_command_takes_them(tmp_path: Path):
    world = ["--frames", "2", "--seed", "8", "--size", "320x192", "--scene-frames", "1", "--weather", "day"]
    for designs in ("seen", "unseen"):
        assert main(["streetworld", *world, "--designs", designs, "--coco", str(tmp_path / designs)]) == 0
    content = {name: json.loads((tmp_path / name / "instances.json").read_text()) for name in ("seen", "unseen")}
    options = WorldOptions(2, 8, 320, 192, weathers=("day",), scene_frames=1, designs="unseen")
    expected = [each.number for shot in StreetWorld(options).shots() for each in shot.truth.instances]
    assert [each["track_id"] for each in content["unseen"]["annotations"]] == expected
    assert content["seen"]["annotations"] != content["unseen"]["annotations"]
