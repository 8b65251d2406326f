"""The street worlds that the default model is trained, validated and tested with: COCO folders, made once."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from seg_perception.offboard.streetworld.coco import write_coco
from seg_perception.offboard.streetworld.light import WEATHERS
from seg_perception.offboard.streetworld.world import StreetWorld, WorldOptions

SIZE = (640, 384)
# How a world was made, in its folder.
_RECIPE = "world.txt"
# Images of one world.
IMAGES = 200
# What training never sees; `designs.is_unseen` says which actors.
UNSEEN_WEATHERS = ("rain",)
SEEN_WEATHERS = tuple(name for name in WEATHERS if name not in UNSEEN_WEATHERS)


@dataclass(frozen=True, slots=True)
class Split:
    """Worlds for one purpose.

    Attributes:
        first_seed: of its worlds, one after another.
        images: in all.
        weathers: of its scenes.
        designs: which actors.
        per_scene: images of one scene. Scenes cost more time than images.
        step: frames from one image of a scene to the next, at 10 frames a second.
    """

    first_seed: int
    images: int
    weathers: tuple[str, ...]
    designs: str
    per_scene: int = 1
    step: int = 1

    def worlds(self) -> list[WorldOptions]:
        """Worlds of at most `IMAGES` images, every `step`-th of their frames."""
        left = range(self.images, 0, -IMAGES)
        return [
            WorldOptions(
                min(IMAGES, images) * self.step, self.first_seed + number, *SIZE, weathers=self.weathers,
                scene_frames=self.per_scene * self.step, designs=self.designs,
            )
            for number, images in enumerate(left)
        ]  # fmt: skip


def splits(images: int) -> dict[str, Split]:
    """Training worlds with `images` images in all, and those that show the result of it.

    `validation` chooses the best checkpoint. `familiar` and `unseen` have new streets in all weathers; `familiar` has
    designs like those of training, `unseen` only such as training never saw. Neither is looked at before the end.
    """
    return {
        "train": Split(1000, images, SEEN_WEATHERS, "seen", 5, 8),
        "validation": Split(5000, 180, SEEN_WEATHERS, "seen"),
        "familiar": Split(6000, 350, WEATHERS, "seen"),
        "unseen": Split(7000, 350, WEATHERS, "unseen"),
    }


def make(folder: Path, split: Split, processes: int) -> list[Path]:
    """Make the worlds that are not there yet.

    Args:
        folder: one folder a world is made in it, named by the seed.
        split: which worlds.
        processes: how many at once.

    Returns:
        The `instances.json` of each.
    """
    wanted = split.worlds()
    missing = [options for options in wanted if not _is_made(folder, options, split.step)]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor(processes) as pool:
            done: Iterable[None] = pool.map(_make_world, [folder] * len(missing), missing, [split.step] * len(missing))
            for _ in tqdm(done, f"worlds in {folder}", len(missing), unit="world"):
                pass
    return [_annotations(folder, options) for options in wanted]


def _is_made(folder: Path, options: WorldOptions, step: int) -> bool:
    """Whether it is there, and made as it would be made now."""
    try:
        return (_annotations(folder, options).parent / _RECIPE).read_text(encoding="utf-8") == _recipe(options, step)
    except FileNotFoundError:
        return False


def _recipe(options: WorldOptions, step: int) -> str:
    return f"{options}\nevery frame of {step}\n"


def _annotations(folder: Path, options: WorldOptions) -> Path:
    return folder / f"seed_{options.seed}_{options.frames}" / "instances.json"


def _make_world(folder: Path, options: WorldOptions, step: int) -> None:
    """Into a folder of another name first, so that what was broken off is not taken for whole."""
    whole = _annotations(folder, options).parent
    partial = whole.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    world = StreetWorld(options)
    write_coco(partial, (world.render(index) for index in range(0, options.frames, step)))
    (partial / _RECIPE).write_text(_recipe(options, step), encoding="utf-8")
    shutil.rmtree(whole, ignore_errors=True)
    partial.rename(whole)
