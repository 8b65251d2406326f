"""Augmented samples: labels move with their images."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from training.augment import Augmentation, augmented

# Sizes refer to a network input as large as the images.
FULL = (320, 192)


def photo(width: int = 320, height: int = 192) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Grey, with a white rectangle that is object 1 and a black circle that is object 2."""
    image, map_ = np.full((height, width, 3), 114, np.uint8), np.zeros((height, width), np.uint8)
    for canvas, (first, second) in ((image, ((255,) * 3, (0,) * 3)), (map_, ((1,), (2,)))):
        cv2.rectangle(canvas, (width // 4, height // 4), (width // 2, height // 2), first, -1)
        cv2.circle(canvas, (int(width * 0.7), int(height * 0.6)), height // 5, second, -1)
    return image, map_


def test_without_changes_a_sample_is_the_image():
    image, map_ = photo()
    options = Augmentation(192, 320, 1.0, 1.0, FULL, light=0, rotation=0, flip=False)
    sample, sample_map = augmented(np.random.default_rng(0), image, map_, options)
    assert np.array_equal(sample, image)
    assert np.array_equal(sample_map, map_)


@pytest.mark.parametrize("seed", range(30))
def test_the_map_shows_the_same_objects_as_the_image(seed: int):
    image, map_ = photo()
    options = Augmentation(192, 320, 0.5, 1.5, FULL, light=0, rotation=5)
    sample, sample_map = augmented(np.random.default_rng(seed), image, map_, options)
    grey = sample[:, :, 0].astype(int)
    for number, seen in ((1, grey > 185), (2, grey < 57)):
        told = sample_map == number
        if told.sum() > 200:
            # Boundaries are blended in the photo, not in the map.
            assert (told & seen).sum() / (told | seen).sum() > 0.93


def test_a_window_shows_part_of_a_image_at_its_own_size():
    image, map_ = photo()
    options = Augmentation(96, 160, 1.0, 1.0, FULL, light=0, rotation=0, flip=False)
    shares = []
    for seed in range(20):
        _, sample_map = augmented(np.random.default_rng(seed), image, map_, options)
        assert sample_map.shape == (96, 160)
        shares.append((sample_map == 1).sum())
    assert max(shares) > 0.9 * min((map_ == 1).sum(), 96 * 160)
    assert len(set(shares)) > 5


def test_images_of_another_shape_are_fitted_into_the_network_size():
    image, map_ = photo(200, 200)
    options = Augmentation(192, 320, 1.0, 1.0, FULL, light=0, rotation=0, flip=False)
    sample, _ = augmented(np.random.default_rng(0), image, map_, options)
    columns = np.flatnonzero((sample != 114).any(axis=(0, 2)))
    assert sample.shape == (192, 320, 3)
    # The image's objects span 0.25 to 0.9 of its width, which is now 192.
    assert columns.max() - columns.min() == pytest.approx(0.65 * 192, abs=4)


def test_light_changes_the_image_and_nothing_else():
    image, map_ = photo()
    options = Augmentation(192, 320, 1.0, 1.0, FULL, light=1.0, rotation=0, flip=False)
    sample, sample_map = augmented(np.random.default_rng(3), image, map_, options)
    assert not np.array_equal(sample, image)
    assert np.array_equal(sample_map, map_)
