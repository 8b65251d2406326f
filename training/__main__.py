"""`python -m training`: trains street-nano on the street world, or fine-tunes it on a set in COCO's format.

The same command goes on where the last one was stopped. Results are in the folder --out: `street-nano.onnx` (canonical,
of the best epoch), `best.safetensors` (its weights), `curves.png`, `history.json`, `last.pt`.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

from seg_perception.errors import ConfigurationError, SegPerceptionError
from seg_perception.evaluation.coco import CocoSet

from .data import Picture, load_pictures
from .train import Training, TrainOptions
from .worlds import make, splits

RUNS = Path(__file__).parent / "runs"
# What is learnt first holds for any street, and a few pictures would only spoil it.
FROZEN = ("stage4", "stage8")
# A small set is passed through several times in one epoch, so that measuring it does not cost most of the time.
_STEPS_PER_EPOCH = 100
_DEFAULTS = TrainOptions()
_FINE_TUNING = TrainOptions(epochs=6, window_epochs=4, rate=5e-4, warm_up=50)


def main(arguments: list[str] | None = None) -> int:
    """Run the training; exit code 3 when it stopped before its end because of --minutes."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(1)
    try:
        training = _on_labels(options) if options.data else _on_worlds(options)
        finished = training.run(options.minutes)
    except (SegPerceptionError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nstopped; the same command goes on from the last checkpoint in {options.out}", file=sys.stderr)
        return 130
    progress = training.progress
    print(f"{options.out}: {progress.epoch} of {options.epochs or '-'} epochs, best mask AP50 {progress.best:.3f}")
    return 0 if finished else 3


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--out", type=Path, help="folder of this training (default: training/runs/street-nano or .../fine-tuned)")
    add("--pictures", type=int, default=7600, help="of the street world, to train with (default: %(default)s)")
    add("--epochs", type=int, help=f"in all (default: {_DEFAULTS.epochs}, fine-tuning {_FINE_TUNING.epochs})")
    add("--window-epochs", type=int, help="the first ones, which see parts of pictures only and so cost less")
    add("--batch", type=int, default=_DEFAULTS.batch, help="samples of a step (default: %(default)s)")
    add(
        "--rate", type=float, help=f"highest learning rate (default: {_DEFAULTS.rate}, fine-tuning {_FINE_TUNING.rate})"
    )
    add("--seed", type=int, default=_DEFAULTS.seed)
    add("--minutes", type=float, default=math.inf, help="stop then; the same command goes on")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda (default: %(default)s)")
    add("--threads", type=int, default=torch.get_num_threads(), help="of the CPU (default: %(default)s)")
    add("--workers", type=int, default=1, help="processes that make samples (default: %(default)s)")
    add("--init", type=Path, metavar="FILE.safetensors", help="weights to begin with, such as those in engines/")
    add("--data", type=Path, metavar="INSTANCES.json", help="labels in COCO's format to train on, not the street world")
    add("--images", type=Path, metavar="DIR", help="folder of their pictures (default: `images` beside them)")
    add("--validation", type=Path, metavar="INSTANCES.json", help="labels to measure with (default: a fifth of --data)")
    add("--freeze", metavar="PART,...", help=f"parts that stay as in --init, or `none` (default: {','.join(FROZEN)})")
    return parser


def _on_worlds(options: argparse.Namespace) -> Training:
    worlds = RUNS / "worlds"
    parts = splits(options.pictures)
    paths = {name: make(worlds / name, parts[name], options.threads) for name in ("train", "validation")}
    pictures = load_pictures([CocoSet.load(path) for path in paths["train"]], RUNS / "maps", options.threads)
    return _training(options, _DEFAULTS, "street-nano", pictures, CocoSet.load(paths["validation"][0]))


def _on_labels(options: argparse.Namespace) -> Training:
    data = CocoSet.load(options.data, options.images)
    if options.validation is not None:
        learnt, validation = data, CocoSet.load(options.validation, options.images)
    else:
        learnt, validation = fifths(data, options.seed)
    pictures = load_pictures([learnt], RUNS / "maps", options.threads)
    passes = max(1, math.ceil(_STEPS_PER_EPOCH * options.batch / max(1, len(pictures))))
    print(
        f"{len(pictures)} pictures to learn from, {passes} times in an epoch; {len(validation.images)} to measure with"
    )
    return _training(options, _FINE_TUNING, "fine-tuned", pictures * passes, validation)


def fifths(data: CocoSet, seed: int) -> tuple[CocoSet, CocoSet]:
    """Four fifths of the pictures to learn from, one to measure with, drawn by chance.

    Raises:
        ConfigurationError: there are too few.
    """
    ids = np.random.default_rng(seed).permutation(list(data.image_ids)).tolist()
    if len(ids) < 5:
        raise ConfigurationError(f"--data {data.path}: expected at least 5 pictures, got {len(ids)}; or --validation")
    return data.only(ids[len(ids) // 5 :]), data.only(ids[: len(ids) // 5])


def _training(
    options: argparse.Namespace, defaults: TrainOptions, name: str, pictures: list[Picture], validation: CocoSet
) -> Training:
    given = {
        key: getattr(options, key)
        for key in ("epochs", "window_epochs", "rate", "batch", "seed")
        if getattr(options, key) is not None
    }
    frozen = FROZEN if options.init and options.data else ()
    if options.freeze is not None:
        frozen = () if options.freeze == "none" else tuple(options.freeze.split(","))
    options.out = options.out or RUNS / name
    train = replace(defaults, **given, frozen=frozen)
    options.epochs = train.epochs
    return Training(
        options.out, train, pictures, validation, options.init, options.workers, options.device
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
