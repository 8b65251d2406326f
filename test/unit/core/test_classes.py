"""Road groups: which class belongs to which, and which table fits a model."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg_perception.core.classes import NO_GROUP, NO_GROUP_NAME, ROAD_GROUPS, ClassTable, choose_table, group_name
from seg_perception.core.errors import ClassTableError, ConfigurationError

NAMES = ("person", "traffic light", "stop sign", "car", "dog")
TABLE = ClassTable(
    "test",
    NAMES,
    {"person": "pedestrian", "traffic light": "traffic_light", "stop sign": "traffic_sign", "car": "vehicle"},
)


def table(name: str, *class_names: str) -> ClassTable:
    return ClassTable(name, class_names, {})


def test_groups_follow_the_order_of_the_model() -> None:
    groups = TABLE.groups(["dog", "car", "person", "stop sign", "traffic light", "unknown", "car"])
    assert groups.dtype == np.int32
    assert [group_name(group) for group in groups.tolist()] == [
        "other", "vehicle", "pedestrian", "traffic_sign", "traffic_light", "other", "vehicle",
    ]  # fmt: skip


def test_a_model_without_classes() -> None:
    groups = TABLE.groups([])
    assert groups.shape == (0,)
    assert groups.dtype == np.int32


@given(
    name=st.sampled_from([name for name in NAMES if name != "dog"]),
    separators=st.lists(st.sampled_from(" _-"), min_size=1, max_size=1),
    upper=st.lists(st.booleans(), min_size=13, max_size=13),
    space=st.sampled_from(["", " ", "\t"]),
)
def test_spelling_does_not_matter(name: str, separators: list[str], upper: list[bool], space: str) -> None:
    letters = [letter.upper() if up else letter for letter, up in zip(name, upper, strict=False)]
    spelled = space + "".join(letters).replace(" ", separators[0]) + space
    assert TABLE.groups([spelled]).tolist() == TABLE.groups([name]).tolist() != [NO_GROUP]
    assert TABLE.covers([spelled]) == 1
    # And the other way round: the table may be the one that spells oddly.
    odd = ClassTable("odd", (), {spelled: "vehicle"})
    assert odd.groups([name]).tolist() == [ROAD_GROUPS.index("vehicle")]


@pytest.mark.parametrize("name", ["trafficlight", "traffic  light", "traffic lights", "pers", ""])
def test_other_names_are_other_classes(name: str) -> None:
    assert TABLE.groups([name]).tolist() == [NO_GROUP]
    assert TABLE.covers([name]) == 0


def test_covers_counts_classes_with_and_without_group() -> None:
    assert TABLE.covers(NAMES) == 5
    assert TABLE.covers(["dog", "cat", "Car"]) == 2
    assert TABLE.covers([]) == 0
    # A name that has a group but is not among the classes is known too.
    assert ClassTable("test", (), {"tram": "vehicle"}).covers(["tram"]) == 1


def test_an_unknown_group_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ClassTableError) as caught:
        ClassTable("mine", ("car",), {"car": "vehicles"})
    for words in ("'mine'", "'car'", "'vehicles'", *ROAD_GROUPS):
        assert words in str(caught.value)
    assert isinstance(caught.value, ConfigurationError)


def test_the_table_that_knows_most_is_chosen() -> None:
    road, home = table("road", "person", "car", "bus"), table("home", "person", "chair", "bed")
    assert choose_table([road, home], ["person", "chair", "lamp"]) is home
    assert choose_table([road, home], ["Person", "car", "lamp"]) is road
    assert choose_table([home, road], ["bus"]) is road


def test_of_equals_the_earlier_one_is_chosen() -> None:
    first, second = table("first", "person", "car"), table("second", "car", "person")
    assert choose_table([first, second], ["person"]) is first
    assert choose_table([second, first], ["person"]) is second


@pytest.mark.parametrize("tables", [[], [table("road", "car"), table("home", "chair")]])
def test_no_table_knows_the_model(tables: list[ClassTable]) -> None:
    with pytest.raises(ClassTableError) as caught:
        choose_table(tables, [f"defect_{index}" for index in range(30)])
    message = str(caught.value)
    assert "defect_0" in message
    assert "defect_8" not in message  # a model of a thousand classes still gives a readable line
    assert ("road, home" if tables else "none") in message
    assert "--classes" in message


def test_a_model_without_classes_has_no_table() -> None:
    with pytest.raises(ClassTableError):
        choose_table([TABLE], [])


def test_names_of_groups() -> None:
    assert [group_name(index) for index in range(len(ROAD_GROUPS))] == list(ROAD_GROUPS)
    assert group_name(NO_GROUP) == NO_GROUP_NAME
    assert NO_GROUP_NAME not in ROAD_GROUPS
