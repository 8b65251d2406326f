"""The training: epochs of steps, each epoch measured, the best kept."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from seg_perception.core.errors import ConfigurationError
from seg_perception.offboard.evaluation.by_group import GroupPrecision, precision_table
from seg_perception.offboard.evaluation.coco import CocoSet

from .augment import Augmentation
from .curves import draw_curves
from .data import Batch, Samples, TrainingImage, collate
from .evaluate import evaluate_model, mean_at_50
from .export import export_canonical
from .losses import losses
from .network import StreetNano
from .state import Average, Progress, load_checkpoint, load_weights, save_checkpoint, save_weights

# Seconds between checkpoints within an epoch.
_CHECKPOINT_EVERY = 300.0


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """How to train.

    Attributes:
        epochs: in all.
        window_epochs: of these, the first ones see windows of `window`, which costs less; the others see `size`.
        size, window: height and width in pixels, multiples of 32.
        batch: samples of a step.
        steps: of an epoch at most, with images drawn by chance; None for as many as there are whole batches.
        rate: highest learning rate; it rises for `warm_up` steps and falls as a cosine to a hundredth.
        warm_up: in steps.
        decay: of the weights (AdamW), but not of biases and normalisations.
        light: strength of changes of light and colour.
        seed: everything random follows from it.
        frozen: names of the network's parts that are not changed.
    """

    epochs: int = 6
    window_epochs: int = 5
    size: tuple[int, int] = (384, 640)
    window: tuple[int, int] = (256, 416)
    batch: int = 8
    steps: int | None = None
    rate: float = 1.5e-3
    warm_up: int = 300
    decay: float = 0.03
    light: float = 1.0
    seed: int = 1
    frozen: tuple[str, ...] = ()

    def augmentation(self, epoch: int) -> Augmentation:
        """Of the samples of an epoch; the last ones are like what the node will see."""
        full = (self.size[1], self.size[0])
        if epoch < self.window_epochs:
            return Augmentation(*self.window, 0.5, 1.5, full, self.light, mosaic=0.4, pastes=1.0)
        return Augmentation(*self.size, 0.8, 1.3, full, self.light, pastes=0.4)


class Training:
    """One training in its folder: `last.pt`, `best.safetensors`, `street-nano.onnx`, `history.json`, `curves.png`."""

    def __init__(
        self, folder: Path, options: TrainOptions, images: Sequence[TrainingImage], validation: Mapping[str, CocoSet],
        start: Path | None = None, workers: int = 1, device: str = "cpu", origin: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Begin, or go on where `last.pt` in the folder was written.

        Args:
            folder: for the results.
            options: how.
            images: to learn from.
            validation: to measure each epoch with, by name.
            start: weights to begin with; None for random ones.
            workers: processes that make samples.
            device: `cpu` or `cuda`.
            origin: what it learns from and begins with; a checkpoint of another origin is refused.
        """
        torch.manual_seed(options.seed)
        self._device = torch.device(device)
        # A CPU without instructions for it is slower in bfloat16 than in float32.
        self._half = device != "cpu" or torch.cpu._is_avx512_bf16_supported()
        self._folder, self._options, self._images = folder, options, images
        self._validation, self._workers = validation, workers
        self._started = start is not None
        self.network = StreetNano()
        if start is not None:
            load_weights(start, self.network)
        self.network.to(self._device)
        self.average = Average(self.network)
        self._optimizer = _optimizer(self.network, options)
        self._record: dict[str, Any] = json.loads(json.dumps({**asdict(options), **(origin or {})}))
        self.progress = Progress()
        folder.mkdir(parents=True, exist_ok=True)
        if self._last.exists():
            self.progress = load_checkpoint(self._last, self._record, self.network, self.average, self._optimizer)
        self._freeze()

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return self.progress.epoch >= self._options.epochs

    @property
    def _last(self) -> Path:
        return self._folder / "last.pt"

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches only, at least one."""
        return min(max(1, len(self._images) // self._options.batch), self._options.steps or sys.maxsize)

    def run(self, minutes: float = math.inf) -> bool:
        """Train to the end, or for so many minutes; returns whether it is finished."""
        end = time.monotonic() + 60 * minutes
        try:
            if self._started and not self.progress.history:
                self._finish_epoch(0, {})
            while not self.finished:
                if not self._epoch(end):
                    self._save()
                    return False
        except KeyboardInterrupt:
            self._save()
            raise
        return True

    def _epoch(self, end: float) -> bool:
        """One epoch and its measurement; returns False if time ran out before its last step."""
        progress = self.progress
        self.network.train()
        self._freeze()
        title = f"epoch {progress.epoch + 1} of {self._options.epochs}"
        # Into a file, a line a minute.
        pause = 0.5 if sys.stderr.isatty() else 60.0
        saved = last = time.monotonic()
        with tqdm(total=self.steps_per_epoch, initial=progress.step, desc=title, unit="step", mininterval=pause) as bar:
            for batch in self._batches():
                for name, value in self._step(batch).items():
                    progress.sums[name] = progress.sums.get(name, 0.0) + value
                now = time.monotonic()
                progress.step, progress.seconds, last = progress.step + 1, progress.seconds + now - last, now
                bar.set_postfix({name: f"{value / progress.step:.3f}" for name, value in progress.sums.items()}, False)
                bar.update()
                if now > saved + _CHECKPOINT_EVERY:
                    self._save()
                    saved = now
                if now > end and progress.step < self.steps_per_epoch:
                    return False
        means = {name: value / progress.step for name, value in progress.sums.items()}
        self._finish_epoch(progress.epoch + 1, means)
        return True

    def _batches(self) -> Iterator[Batch]:
        """The rest of the epoch, in an order of its own."""
        options, progress = self._options, self.progress
        order = np.random.default_rng((options.seed, progress.epoch)).permutation(len(self._images))
        if len(order) < options.batch:
            order = np.resize(order, options.batch)
        left = order[progress.step * options.batch : self.steps_per_epoch * options.batch]
        samples = Samples(self._images, options.augmentation(progress.epoch), options.seed, progress.epoch)
        yield from DataLoader(
            Subset(samples, left.tolist()), options.batch, num_workers=self._workers, collate_fn=collate,
            prefetch_factor=4 if self._workers else None,
        )  # fmt: skip

    def _step(self, batch: Batch) -> dict[str, float]:
        done = self.progress.epoch * self.steps_per_epoch + self.progress.step
        # So that a training that was stopped in between comes to the same.
        torch.manual_seed(1_000_003 * self._options.seed + done)
        rate = learning_rate(self._options, done, self._options.epochs * self.steps_per_epoch)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        batch = batch.to(self._device)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._half):
            raw = self.network((batch.images.float() / 255).contiguous(memory_format=torch.channels_last))
        parts = losses(raw, batch)
        self._optimizer.zero_grad(set_to_none=True)
        parts.total().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), 10.0)
        self._optimizer.step()
        self.average.update(self.network)
        return parts.numbers()

    def _finish_epoch(self, epoch: int, means: dict[str, float]) -> None:
        """Measure; also what a training begins with, as epoch 0, so that it is seen whether anything was gained."""
        progress = self.progress
        candidate = self._folder / "candidate.onnx"
        export_canonical(self.average.network, candidate, self._options.size)
        threads = torch.get_num_threads()
        results = {name: evaluate_model(candidate, each, threads=threads) for name, each in self._validation.items()}
        score = sum(mean_at_50(each) for each in results.values()) / len(results)
        numbers = {f"{name}/{key}": value for name, each in results.items() for key, value in flat(each).items()}
        row = {"epoch": epoch, "seconds": round(progress.seconds, 1), **means, "score": score, **numbers}
        progress.history.append(row)
        progress.epoch, progress.step, progress.sums, progress.seconds = epoch, 0, {}, 0.0
        print(", ".join(f"{name} {value:.4g}" for name, value in row.items() if "/" not in name))
        for name, each in results.items():
            print(f"{name}\n{precision_table(each[:4])}", flush=True)
        if score > progress.best:
            progress.best = score
            save_weights(self._folder / "best.safetensors", self.average.network)
            candidate.replace(self._folder / "street-nano.onnx")
        candidate.unlink(missing_ok=True)
        self._save()
        (self._folder / "history.json").write_text(json.dumps(progress.history, indent=1), encoding="utf-8")
        draw_curves(progress.history, list(self._validation), self._folder / "curves.png")

    def _save(self) -> None:
        save_checkpoint(self._last, self._record, self.network, self.average, self._optimizer, self.progress)

    def _freeze(self) -> None:
        """Frozen parts keep their weights and the statistics of their normalisations."""
        parts = dict(self.network.named_modules())
        for name in self._options.frozen:
            if name not in parts:
                known = ", ".join(each for each, _ in self.network.named_children())
                raise ConfigurationError(f"--freeze: expected some of {known}, or none; got {name!r}")
            part = parts[name].eval()
            for parameter in part.parameters():
                parameter.requires_grad_(False)


def learning_rate(options: TrainOptions, step: int, steps: int) -> float:
    """Linear rise, then half a cosine down to a hundredth."""
    warm_up = min(options.warm_up, max(1, steps // 10))
    if step < warm_up:
        return options.rate * (step + 1) / warm_up
    share = (step - warm_up) / max(1, steps - warm_up)
    return options.rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, share))))


def flat(results: Sequence[GroupPrecision]) -> dict[str, float]:
    """Average precisions under names such as `all/mask/vehicle/at_50`; what cannot be measured is left out."""
    values = {
        f"{each.name}/{each.kind}/{group}/{level}": value
        for each in results
        for level, table in (("at_50", each.at_50), ("ap", each.overall))
        for group, value in table.items()
    }
    return {name: value for name, value in values.items() if not math.isnan(value)}


def _optimizer(network: nn.Module, options: TrainOptions) -> torch.optim.AdamW:
    decayed = [each for each in network.parameters() if each.ndim > 1]
    others = [each for each in network.parameters() if each.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": options.decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=options.rate, fused=True)
