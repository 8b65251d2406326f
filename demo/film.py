"""What the demo shows in images: overlays on one sheet; a drive next to its truth, as a video and on a sheet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from demo.street import RULE, Drive
from seg_perception.core.classes import NO_GROUP, ROAD_GROUPS
from seg_perception.core.encodings.raw import to_bgr
from seg_perception.core.frame import Frame
from seg_perception.offboard.data.bags.source import BagImages
from seg_perception.offboard.data.published import PublishedFrame
from seg_perception.offboard.streetworld.bag import IMAGE

_ON_SHEET = 8
# Blue, green, red of each road group, as in docs/streetworld.md.
_COLOURS = ((60, 60, 230), (220, 140, 40), (40, 210, 230), (80, 200, 80))
_JPEG = (cv2.IMWRITE_JPEG_QUALITY, 88)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def write_film(drive: Drive, video: Path, sheet: Path) -> int:
    """Write a video (MPEG-4) of all frames and a sheet of some, received on the left and true on the right.

    Returns:
        How many frames the video has.

    Raises:
        OSError: OpenCV cannot write the video or the sheet.
    """
    wanted = set(np.linspace(0, len(drive.truth) - 1, _ON_SHEET).round().astype(int).tolist())
    chosen: list[NDArray[np.uint8]] = []
    writer: cv2.VideoWriter | None = None
    count = 0
    for count, image in enumerate(_images(drive), 1):
        if writer is None:
            size = (image.shape[1], image.shape[0])
            writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"mp4v"), drive.rate, size)
        writer.write(image)
        if count - 1 in wanted:
            chosen.append(image)
    if writer is None or not writer.isOpened():
        raise OSError(f"{video}: OpenCV cannot write this video")
    writer.release()
    width = 960
    cell = (width, round(width * chosen[0].shape[0] / chosen[0].shape[1]))
    if not cv2.imwrite(str(sheet), _grid(chosen, 2, cell), _JPEG):
        raise OSError(f"{sheet}: OpenCV cannot write this image")
    return count


def _images(drive: Drive) -> Iterator[NDArray[np.uint8]]:
    """Both sides of each frame."""
    received = {each.stamp_ns: each for each in drive.received}
    truth = {each.stamp_ns: each for each in drive.truth}
    for _, frame in BagImages(drive.bag, topics=[IMAGE]):
        if frame.stamp_ns in truth:
            found = received.get(frame.stamp_ns)
            left = _panel(frame, found, "received" if found else "no result: dropped")
            right = _panel(frame, truth[frame.stamp_ns], "truth")
            end = right.shape[1] // 4
            for group, colour in zip(ROAD_GROUPS, _COLOURS, strict=True):
                end = _write(right, end, group, colour)
            yield np.hstack([left, right])


def _panel(frame: Frame, published: PublishedFrame | None, title: str) -> NDArray[np.uint8]:
    panel = to_bgr(frame).copy() if published is None else _painted(to_bgr(frame), published)
    _write(panel, 0, title, (255, 255, 255))
    return panel


def _painted(image: NDArray[np.uint8], published: PublishedFrame) -> NDArray[np.uint8]:
    """The image with each instance that reaches the score in the colour of its road group, and outlined."""
    shown = (published.scores >= RULE.score) & (published.groups != NO_GROUP)
    colours = np.zeros((1 << 16, 3), np.uint8)
    colours[published.numbers[shown]] = np.array(_COLOURS, np.uint8)[published.groups[shown]]
    coloured = np.asarray(colours.any(axis=1))
    numbers = np.where(coloured[published.pixels], published.pixels, 0)
    tint = colours[numbers]
    mixed = cv2.addWeighted(image, 0.5, tint, 0.5, 0.0)
    # Neighbours of one group stay apart by their outlines.
    edge = cv2.morphologyEx(numbers, cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8)) > 0
    inside = numbers > 0
    return np.where((edge & inside)[..., None], tint, np.where(inside[..., None], mixed, image)).astype(np.uint8)


def _write(image: NDArray[np.uint8], left: int, text: str, colour: tuple[int, int, int]) -> int:
    """Write on black at the bottom; returns where the text ends."""
    (width, height), below = cv2.getTextSize(text, _FONT, 0.5, 1)
    bottom = image.shape[0]
    cv2.rectangle(image, (left, bottom - height - below - 8), (left + width + 8, bottom), (0, 0, 0), cv2.FILLED)
    cv2.putText(image, text, (left + 4, bottom - below - 3), _FONT, 0.5, colour, 1, cv2.LINE_AA)
    return left + width + 8


def contact_sheet(overlays: list[Path], target: Path) -> Path | None:
    """Up to twelve overlays, evenly spread, on one image; None when there are none."""
    if not overlays:
        return None
    chosen = np.linspace(0, len(overlays) - 1, min(len(overlays), 12)).round().astype(int)
    read = (cv2.imread(str(overlays[index])) for index in chosen)
    images = [image.astype(np.uint8, copy=False) for image in read if image is not None]
    cv2.imwrite(str(target), _grid(images, 3, (480, 270)), _JPEG)
    return target


def _grid(images: Sequence[NDArray[np.uint8]], columns: int, cell: tuple[int, int]) -> NDArray[np.uint8]:
    """Images row by row, each scaled to the width and height of `cell`."""
    cells = [cv2.resize(image, cell, interpolation=cv2.INTER_AREA) for image in images]
    while len(cells) % columns:
        cells.append(np.zeros_like(cells[0]))
    rows = [np.hstack(cells[start : start + columns]) for start in range(0, len(cells), columns)]
    return np.vstack(rows).view(np.uint8)
