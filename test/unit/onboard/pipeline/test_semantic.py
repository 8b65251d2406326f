"""Class maps and instances on one map."""

from __future__ import annotations

import numpy as np

from seg_perception.core.contract import NO_CLASS
from seg_perception.core.instances import MAX_SEMANTIC_CLASSES, InstanceMap, Instances
from seg_perception.onboard.pipeline.semantic import semantic_map


def instances(numbers: list[int], labels: list[int]) -> Instances:
    count = len(numbers)
    return Instances(
        np.arange(count, dtype=np.int32),
        np.array(numbers, np.uint16),
        np.zeros((count, 4), np.float32),
        np.ones(count, np.float32),
        np.array(labels, np.int32),
        np.zeros(count, np.int32),
    )


def painted(pixels: list[list[int]]) -> InstanceMap:
    return InstanceMap(np.array(pixels, np.uint16), np.zeros(0, np.int64))


def test_without_a_class_map_it_shows_the_instances() -> None:
    result = semantic_map(None, instances([3, 700], [0, 4]), painted([[0, 3], [700, 3]]))
    assert result.dtype == np.uint8
    assert result.tolist() == [[0, 1], [5, 1]]


def test_without_anything_it_is_background() -> None:
    assert semantic_map(None, instances([], []), painted([[0, 0]])).tolist() == [[0, 0]]


def test_instances_lie_over_the_class_map() -> None:
    class_map = np.array([[7, NO_CLASS, 2], [7, 7, NO_CLASS]], np.uint8)
    result = semantic_map(class_map, instances([1], [2]), painted([[0, 0, 0], [0, 1, 1]]))
    assert result.dtype == np.uint8
    assert result.tolist() == [[8, 0, 3], [8, 3, 3]]


def test_classes_beyond_eight_bits_are_background() -> None:
    last = MAX_SEMANTIC_CLASSES - 1
    result = semantic_map(None, instances([1, 2], [last, last + 1]), painted([[1, 2]]))
    assert result.tolist() == [[255, 0]]


def test_an_instance_without_a_value_of_its_own_leaves_the_class_map() -> None:
    class_map = np.array([[4]], np.uint8)
    assert semantic_map(class_map, instances([1], [300]), painted([[1]])).tolist() == [[5]]
