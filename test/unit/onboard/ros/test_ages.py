"""How old frames are judged to be, whatever their stamps and the ROS clock say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg_perception.onboard.ros.ages import StampCheck, StampValidator

SECOND = 10**9
NOW = 1_700_000_000 * SECOND


def judge(judge: StampValidator, stamp: float, now: float, waited: float = 0.01) -> StampCheck:
    """Judge a frame; stamp and clock in seconds."""
    return judge.judge(round(stamp * SECOND), now_ns=round(now * SECOND), waited=waited)


@given(age=st.floats(-0.9, 3599.0), max_age=st.floats(0.0, 3600.0), waited=st.floats(0.0, 1e4))
def test_a_stamp_of_the_ros_clock_is_believed(age: float, max_age: float, waited: float) -> None:
    stamp = NOW - round(age * SECOND)
    verdict = StampValidator(max_age).judge(stamp, now_ns=NOW, waited=waited)
    assert not verdict.by_arrival
    assert not verdict.news
    assert verdict.age == pytest.approx(age, abs=1e-6)
    assert verdict.too_old == (0 < max_age < (NOW - stamp) / 1e9)


@given(
    stamp=st.one_of(
        st.just(0),
        st.integers(NOW + 2 * SECOND, 2**31 * SECOND),
        st.integers(-(2**31) * SECOND, NOW - 3600 * SECOND),
    ),
    max_age=st.floats(0.0, 3600.0),
    waited=st.floats(0.0, 10.0),
)
def test_other_stamps_are_not(stamp: int, max_age: float, waited: float) -> None:
    judging = StampValidator(max_age)
    verdict = judging.judge(stamp, now_ns=NOW, waited=waited)
    assert verdict.by_arrival
    assert judging.doubt
    assert judging.doubt in verdict.news
    assert verdict.age == waited
    assert verdict.too_old == (0 < max_age < waited)
    assert not judging.judge(stamp, now_ns=NOW + 1, waited=waited).news, "told once"


@given(
    steps=st.lists(st.floats(-1e4, 1e4).filter(lambda step: abs(step + 1) > 0.01), min_size=1, max_size=30),
    delays=st.lists(st.floats(0.0, 0.4), min_size=30, max_size=30),
)
def test_a_camera_on_the_ros_clock_loses_nothing_however_the_clock_jumps(
    steps: list[float], delays: list[float]
) -> None:
    judging, now = StampValidator(0.5), 2e6
    judge(judging, now, now)
    for step, delay in zip(steps, delays, strict=False):
        now += step
        verdict = judge(judging, now - delay, now)
        assert not verdict.too_old
        assert not verdict.by_arrival
        assert ("went back" in verdict.news) == (step < -1)


def test_a_bag_that_starts_again_before_its_clock_does() -> None:
    judging = StampValidator(0.5)
    for index in range(4):
        assert not judge(judging, 100 + 0.1 * index, 100.05 + 0.1 * index).too_old
    verdicts = [judge(judging, 10 + 0.1 * index, 100.5) for index in range(6)]
    assert [verdict.too_old for verdict in verdicts] == [True, True, False, False, False, False]
    assert "stamps went back by 90.3 s" in verdicts[2].news
    assert not verdicts[3].news
    last = judge(judging, 10.6, 10.65)
    assert (last.by_arrival, last.too_old) == (False, False)
    assert "the ROS clock went back by 89.8 s; stamps fit" in last.news
    assert not judging.doubt


def test_a_clock_that_starts_again_before_the_stamps_do() -> None:
    judging = StampValidator(0.5)
    judge(judging, 100.0, 100.1)
    verdict = judge(judging, 100.1, 10.0)
    assert (verdict.by_arrival, verdict.too_old) == (True, False)
    assert "the ROS clock went back" in verdict.news
    assert not judge(judging, 10.0, 10.1).by_arrival


def test_old_frames_between_new_ones_stay_old() -> None:
    """Two publishers, one of which replays: its frames are never taken for new."""
    judging = StampValidator(0.5)
    for index in range(20):
        assert not judge(judging, 100 + index, 100.1 + index).too_old
        assert judge(judging, 30 + index, 100.1 + index).too_old
        assert judge(judging, 30.1 + index, 100.1 + index).too_old


def test_a_backlog_is_old() -> None:
    """Stamps that go on as before, however late they come."""
    judging = StampValidator(0.5)
    judge(judging, 100.0, 100.1)
    assert all(judge(judging, 100.1 + 0.1 * index, 160.0).too_old for index in range(50))
    assert not judge(judging, 159.9, 160.0).too_old


def test_without_a_clock_frames_are_new_while_they_are() -> None:
    judging = StampValidator(0.5)
    assert judge(judging, 1e6, 0.0).by_arrival
    assert judge(judging, 1e6, 0.0, waited=0.6).too_old
