"""Mosaics and pasted objects: labels stay true."""

from __future__ import annotations

import numpy as np
import pytest

from training.mix import Cutout, Sample, mosaic, paste


def tile(height: int, width: int, *labels: int, unknown: int = 0) -> Sample:
    """An image of bright stripes, each an object, between dark ones that are none."""
    image, map_ = np.full((height, width, 3), 20, np.uint8), np.zeros((height, width), np.uint8)
    for number in range(1, len(labels) + 1):
        rows = np.s_[number * 8 : number * 8 + 4]
        image[rows], map_[rows] = 100 + 10 * labels[number - 1], number
    return Sample(image, map_, np.where(map_ == 0, np.uint8(unknown), np.uint8(0)), list(labels))


def test_a_mosaic_has_the_objects_of_all_its_images_where_they_are_seen() -> None:
    tiles = [tile(40, 60, 0, 3), tile(40, 30), tile(20, 60, 2, unknown=2), tile(20, 30, 1, unknown=13)]
    tiles[1].map_[5:9] = 255
    whole = mosaic(tiles)
    assert whole.map_.shape == whole.unknown.shape == whole.image.shape[:2] == (60, 90)
    assert whole.labels == [0, 3, 2, 1]
    for number, label in enumerate(whole.labels, 1):
        assert set(np.unique(whole.image[whole.map_ == number])) == {100 + 10 * label}
    assert set(np.unique(whole.image[whole.map_ == 0])) == {20}
    assert (whole.map_[5:9, 60:] == 255).all()
    assert (whole.unknown[40:, :60] == np.where(whole.map_[40:, :60] == 0, 2, 0)).all()
    assert (whole.unknown[:40] == 0).all()


def test_what_a_map_has_no_numbers_for_is_ignored_in_a_mosaic() -> None:
    many = Sample(
        np.zeros((16, 16, 3), np.uint8), np.arange(256, dtype=np.uint8).reshape(16, 16), np.zeros((16, 16), np.uint8),
        [0] * 254,
    )  # fmt: skip
    whole = mosaic([many, tile(16, 16, 1), tile(16, 16), tile(16, 16)])
    assert (whole.map_[:16, :16] == many.map_).all()
    assert (whole.map_[8:12, 16:] == 255).all()


@pytest.mark.parametrize("seed", range(20))
def test_a_pasted_object_is_labelled_where_it_is_seen_and_covers_what_was_there(seed: int) -> None:
    sample = tile(96, 160, 0, 1, unknown=15)
    before = sample.map_.copy()
    mask = np.zeros((40, 30), np.uint8)
    mask[5:35, 5:25] = 1
    cutout = Cutout(np.full((40, 30, 3), 250, np.uint8), mask, 2)
    paste(np.random.default_rng(seed), sample, cutout, light=0)
    assert sample.labels == [0, 1, 2]
    pasted = sample.map_ == 3
    # Its edge is blended.
    assert (pasted ^ (sample.image[..., 0] > 180)).sum() <= 0.25 * pasted.sum() + 8
    assert (sample.unknown[pasted] == 0).all()
    assert (sample.map_[~pasted] == before[~pasted]).all()
    assert (sample.image[before == 0][:, 0] >= 20).all()


def test_a_full_map_takes_no_further_object() -> None:
    sample = tile(32, 32)
    sample.labels = [0] * 254
    paste(np.random.default_rng(0), sample, Cutout(np.zeros((20, 20, 3), np.uint8), np.ones((20, 20), np.uint8), 1), 0)
    assert len(sample.labels) == 254
    assert not sample.map_.any()
