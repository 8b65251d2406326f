"""`python -m training`: trains street-nano on the street world, or fine-tunes it on a COCO-format set."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import torch

from seg_perception.errors import SegPerceptionError
from seg_perception.evaluation.coco import CocoSet

from .data import load_pictures
from .train import Training, TrainOptions
from .worlds import make, splits

_DEFAULTS = TrainOptions()
RUNS = Path(__file__).parent / "runs"


def main(arguments: list[str] | None = None) -> int:
    """Run the training; exit code 3 when it stopped before its end because of --minutes."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(1)
    try:
        training = _fine_tuning(options) if options.data else _from_worlds(options)
    except (SegPerceptionError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finished = training.run(options.minutes)
    print(f"{options.out}: epoch {training.progress.epoch}, best mask AP50 {training.progress.best:.3f}")
    return 0 if finished else 3


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("--out", type=Path, default=RUNS / "street-nano", help="folder of this training")
    parser.add_argument("--pictures", type=int, default=7600, help="of the street world, to train with")
    parser.add_argument("--epochs", type=int, default=_DEFAULTS.epochs)
    parser.add_argument("--window-epochs", type=int, default=_DEFAULTS.window_epochs)
    parser.add_argument("--rate", type=float, default=_DEFAULTS.rate, help="highest learning rate")
    parser.add_argument("--batch", type=int, default=_DEFAULTS.batch)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop then; the same command goes on")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--workers", type=int, default=1, help="processes that make samples")
    parser.add_argument("--init", type=Path, help="weights to begin with (.safetensors)")
    parser.add_argument("--data", type=Path, help="COCO annotations to fine-tune on")
    parser.add_argument("--images", type=Path, help="folder of their images")
    parser.add_argument("--validation", type=Path, help="COCO annotations to measure with (default: a part of --data)")
    return parser


def _from_worlds(options: argparse.Namespace) -> Training:
    worlds = RUNS / "worlds"
    parts = splits(options.pictures)
    paths = {name: make(worlds / name, parts[name], options.threads) for name in ("train", "validation")}
    pictures = load_pictures([CocoSet.load(path) for path in paths["train"]], RUNS / "maps", options.threads)
    train = TrainOptions(options.epochs, options.window_epochs, batch=options.batch, rate=options.rate)
    validation = CocoSet.load(paths["validation"][0])
    return Training(options.out, train, pictures, validation, options.init, options.workers)


def _fine_tuning(options: argparse.Namespace) -> Training:
    raise NotImplementedError


if __name__ == "__main__":
    sys.exit(main())
