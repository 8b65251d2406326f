"""`python -m training`: trains street-nano on photographs and the street world, or fine-tunes it on a COCO set.

The same command goes on where the last one was stopped. Results are in the folder --out: `street-nano.onnx` (canonical,
of the best epoch), `best.safetensors` (its weights), `curves.png`, `history.json`, `last.pt`.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

from seg_perception.core.class_tables import category_groups
from seg_perception.core.classes import group_name
from seg_perception.core.errors import ConfigurationError, SegPerceptionError
from seg_perception.offboard.evaluation.coco import CocoSet

from .data import fingerprint, load_images
from .photographs import DEFAULT, photographs
from .train import Training, TrainOptions
from .worlds import make, splits

RUNS = Path(__file__).parent / "runs"
# What is learnt first holds for any street, and a few images would only spoil it.
FROZEN = ("stage4", "stage8")
# A small set is passed through several times in one epoch, so that measuring it does not cost most of the time.
_STEPS_PER_EPOCH = 100
_DEFAULTS = TrainOptions()
_FINE_TUNING = TrainOptions(epochs=6, window_epochs=4, rate=5e-4, warm_up=50)


def main(arguments: list[str] | None = None) -> int:
    """Run the training; exit code 3 when it stopped before its end because of --minutes."""
    parser = _parser()
    options = parser.parse_args(arguments)
    _check(parser, options)
    options.out = options.out or RUNS / ("fine-tuned" if options.data else "street-nano")
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(1)
    try:
        training = _on_labels(options) if options.data else _on_worlds(options)
        if training.finished:
            print(f"{options.out}: this training is finished; choose another --out for a new one")
        finished = training.run(options.minutes)
    except (SegPerceptionError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nstopped; the same command goes on in {options.out}", file=sys.stderr)
        return 130
    print(f"{options.out}: epoch {training.progress.epoch}, best mask AP50 {training.progress.best:.3f}")
    return 0 if finished else 3


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--out", type=Path, help="folder of this training (default: training/runs/street-nano or .../fine-tuned)")
    add("--world-images", type=_count, default=7600, help="of the street world, to train with (default: %(default)s)")
    add(
        "--photographs", type=Path, default=DEFAULT, metavar="INSTANCES.json",
        help="labels of the photographs to train with, next to the street world (default: %(default)s)",
    )  # fmt: skip
    add("--steps", type=_count, help="of an epoch, at most (default: as many as there are images for)")
    add("--epochs", type=_count, help=f"in all (default: {_DEFAULTS.epochs}, fine-tuning {_FINE_TUNING.epochs})")
    add("--window-epochs", type=int, help="the first ones, which see parts of images only and so cost less")
    add("--batch", type=_count, default=_DEFAULTS.batch, help="samples of a step (default: %(default)s)")
    add("--rate", type=_rate, help=f"learning rate (default: {_DEFAULTS.rate}, with --init {_FINE_TUNING.rate})")
    add("--seed", type=int, default=_DEFAULTS.seed)
    add("--minutes", type=float, default=math.inf, help="stop then; the same command goes on")
    add("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    add("--threads", type=_count, default=torch.get_num_threads(), help="of the CPU (default: %(default)s)")
    add("--workers", type=int, default=1, help="processes that make samples (default: %(default)s)")
    add("--init", type=Path, metavar="FILE.safetensors", help="weights to begin with, such as those in engines/")
    add("--data", type=Path, metavar="INSTANCES.json", help="labels in COCO's format to train on, not the street world")
    add("--images", type=Path, metavar="DIR", help="folder of their images (default: `images` next to them)")
    add(
        "--validation", type=Path, metavar="INSTANCES.json",
        help="labels to measure with (default: a fifth of --data, drawn by chance, which is too kind where images "
        "are frames of the same drives)",
    )  # fmt: skip
    add("--validation-images", type=Path, metavar="DIR", help="folder of their images (default: as --images)")
    add("--freeze", metavar="PART,...", help=f"parts that stay as in --init, or `none` (default: {','.join(FROZEN)})")
    return parser


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse what does not go together."""
    for name in ("images", "validation"):
        if getattr(options, name) and not options.data:
            parser.error(f"--{name}: expected together with --data")
    if options.validation_images and not options.validation:
        parser.error("--validation-images: expected together with --validation")
    if options.freeze not in (None, "none") and not options.init:
        parser.error("--freeze: expected together with --init; without it the parts would stay as chance made them")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch finds no CUDA device here")
    if options.workers < 0:
        parser.error(f"--workers: expected 0 or more, got {options.workers}")


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def _rate(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"expected a number between 0 and 1, got {text!r}")
    return value


def _on_worlds(options: argparse.Namespace) -> Training:
    worlds = RUNS / "worlds"
    parts = splits(options.world_images)
    paths = {name: make(worlds / name, parts[name], options.threads) for name in ("train", "validation")}
    learnt = [CocoSet.load(path) for path in paths["train"]]
    validation = {"street world": CocoSet.load(paths["validation"][0])}
    if options.photographs == DEFAULT and not DEFAULT.exists():
        print(f"no photographs: {DEFAULT} is not there, and --photographs names no others; the street world alone")
        return _training(options, _DEFAULTS, learnt, [], validation)
    real, validation["photographs"] = photographs(options.photographs)
    return _training(options, _DEFAULTS, learnt, [real], validation)


def _on_labels(options: argparse.Namespace) -> Training:
    data = CocoSet.load(options.data, options.images)
    if options.validation is not None:
        learnt, validation = data, CocoSet.load(options.validation, options.validation_images or options.images)
    else:
        learnt, validation = fifths(data, options.seed)
    shared = {image.path.resolve() for image in learnt.images} & {image.path.resolve() for image in validation.images}
    if shared:
        raise ConfigurationError(
            f"--validation: expected other images than in --data, {len(shared)} are in both, such as {min(shared)}; "
            "name their folder with --validation-images"
        )
    for name, each in (("to learn from", learnt), ("to measure with", validation)):
        print("\n  ".join([f"{name}: {describe(each)}", *each.left_out()]))
    defaults = _FINE_TUNING if options.init else replace(_FINE_TUNING, rate=_DEFAULTS.rate)
    return _training(options, defaults, [], [learnt], {"validation": validation})


def fifths(data: CocoSet, seed: int) -> tuple[CocoSet, CocoSet]:
    """Four fifths of the images to learn from, one to measure with, drawn by chance.

    Raises:
        ConfigurationError: there are too few.
    """
    ids = np.random.default_rng(seed).permutation(list(data.image_ids)).tolist()
    if len(ids) < 5:
        raise ConfigurationError(f"--data {data.path}: expected at least 5 images, got {len(ids)}; or --validation")
    return data.only(ids[len(ids) // 5 :]), data.only(ids[: len(ids) // 5])


def describe(data: CocoSet) -> str:
    """How many images, and which categories count as which road group.

    Raises:
        ConfigurationError: nothing in them is of a road group.
    """
    group_of = category_groups(data.annotations["categories"])
    chosen = set(data.image_ids)
    counts = Counter(each["category_id"] for each in data.annotations["annotations"] if each["image_id"] in chosen)
    names = {each["id"]: each["name"] for each in data.annotations["categories"]}
    known = [f"{names[key]} -> {group_name(group_of[key])} ({n})" for key, n in counts.items() if group_of[key] >= 0]
    if not known:
        raise ConfigurationError(
            f"{data.path}: expected objects of the road groups in its {len(chosen)} images, found none among "
            f"{', '.join(names[key] for key in counts) or 'no objects'}"
        )
    absent = f", {len(data.missing)} more are not there" if data.missing else ""
    return f"{len(chosen)} images{absent}; {', '.join(known)}; everything else is background"


def _training(
    options: argparse.Namespace, defaults: TrainOptions, worlds: list[CocoSet], real: list[CocoSet],
    validation: dict[str, CocoSet],
) -> Training:  # fmt: skip
    """The training on rendered worlds and on real images; as many of the one as of the other."""
    rendered = load_images(worlds, RUNS / "maps", options.threads)
    images = load_images(real, RUNS / "maps", options.threads, lends=True)
    # Twice those labelled for all groups: the others do not say what is no vehicle, sign or light.
    complete = [each for each in images if not each.unknown]
    images += complete if len(complete) < len(images) else []
    wanted = max(_STEPS_PER_EPOCH * options.batch, len(rendered))
    images *= max(1, math.ceil(wanted / max(1, len(images))))
    names = ("epochs", "window_epochs", "rate", "batch", "seed", "steps")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    train = replace(defaults, **given)
    train = replace(train, window_epochs=min(train.window_epochs, train.epochs), frozen=_frozen(options))
    begun = hashlib.sha256(options.init.read_bytes()).hexdigest() if options.init else ""
    prints = [fingerprint(each) for each in (*worlds, *real, *validation.values())]
    return Training(
        options.out, train, [*rendered, *images], validation, options.init, options.workers, options.device,
        {"data": prints, "init": begun},
    )  # fmt: skip


def _frozen(options: argparse.Namespace) -> tuple[str, ...]:
    if options.freeze is None:
        return FROZEN if options.init and options.data else ()
    return () if options.freeze == "none" else tuple(options.freeze.split(","))


if __name__ == "__main__":
    sys.exit(main())
