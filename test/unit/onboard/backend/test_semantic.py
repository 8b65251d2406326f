"""Class maps and instances on one map."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.contract import NO_CLASS
from seg_perception.core.instances import MAX_SEMANTIC_CLASSES
from seg_perception.onboard.backend.host.job import semantic_map


def arrays(
    ids: list[int], labels: list[int], pixels: list[list[int]]
) -> tuple[NDArray[np.uint16], NDArray[np.int32], NDArray[np.uint16]]:
    return np.array(ids, np.uint16), np.array(labels, np.int32), np.array(pixels, np.uint16)


def test_without_a_class_map_it_shows_the_instances() -> None:
    result = semantic_map(None, *arrays([3, 700], [0, 4], [[0, 3], [700, 3]]))
    assert result.dtype == np.uint8
    assert result.tolist() == [[0, 1], [5, 1]]


def test_without_anything_it_is_background() -> None:
    assert semantic_map(None, *arrays([], [], [[0, 0]])).tolist() == [[0, 0]]


def test_instances_lie_over_the_class_map() -> None:
    class_map = np.array([[7, NO_CLASS, 2], [7, 7, NO_CLASS]], np.uint8)
    result = semantic_map(class_map, *arrays([1, 0], [2, 9], [[0, 0, 0], [0, 1, 1]]))
    assert result.dtype == np.uint8
    assert result.tolist() == [[8, 0, 3], [8, 3, 3]]


def test_classes_beyond_eight_bits_are_background() -> None:
    last = MAX_SEMANTIC_CLASSES - 1
    result = semantic_map(None, *arrays([1, 2], [last, last + 1], [[1, 2]]))
    assert result.tolist() == [[255, 0]]


def test_an_instance_without_a_value_of_its_own_leaves_the_class_map() -> None:
    class_map = np.array([[4]], np.uint8)
    assert semantic_map(class_map, *arrays([1], [300], [[1]])).tolist() == [[5]]
