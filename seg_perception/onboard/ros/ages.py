"""How old a frame is: by its stamp where that can be believed, else by its arrival."""

from __future__ import annotations

from dataclasses import dataclass

from .statistics import LONGEST_LATENCY

# Clocks of two machines, and /clock of a simulation, may be apart by this much.
_AHEAD_SECONDS = 1.0
# Stamps or a clock that go back by more than this begin again: a bag that starts again, a clock that was set.
_BACK_SECONDS = 1.0
# So many old frames in a row, after the stamps went back, are new ones of a camera with another clock. Fewer are old
# frames between new ones, such as those of a second publisher.
_PATIENCE = 3
_REMEDY = "check that the camera stamps its frames, and that use_sim_time and /clock are as the camera's"


@dataclass(frozen=True, slots=True)
class StampCheck:
    """The verdict on the age of a frame.

    Attributes:
        age: seconds; from its stamp on the ROS clock, or from its arrival.
        too_old: whether it is older than allowed.
        by_arrival: whether its stamp was not believed.
        news: what has changed since the frame before, human-readable; empty for nothing.
        kind: of the news, for throttling the log.
    """

    age: float
    too_old: bool
    by_arrival: bool = False
    news: str = ""
    kind: str = ""


class StampValidator:
    """Judges the frames of one camera, in the order in which they come.

    A stamp is not believed when there is none, when it lies in the future, or when it is so far in the past that it
    must be of another clock. Stamps that have gone back are doubted until they fit the ROS clock again.

    Attributes:
        max_age: seconds; 0 for no limit. May be replaced at any time.
        doubt: why stamps are not believed at present; empty when they are.
    """

    def __init__(self, max_age: float) -> None:
        """Set the limit in seconds; 0 for none."""
        self.max_age = max_age
        self.doubt = ""
        self._kind = ""
        self._stamp_ns: int | None = None
        self._now_ns: int | None = None
        self._back = 0.0
        self._suspects = 0

    def judge(self, stamp_ns: int, *, now_ns: int, waited: float) -> StampCheck:
        """Judge the next frame.

        Args:
            stamp_ns: its stamp.
            now_ns: the ROS clock.
            waited: seconds since it arrived, of real time.
        """
        age = (now_ns - stamp_ns) / 1e9
        self._notice_stamp(stamp_ns, age)
        kind, doubt = self._doubt(stamp_ns, now_ns, age)
        news = {"clock": self._notice_clock(now_ns)}
        if kind != self._kind:
            news[kind] = f"{doubt}; age is counted from arrival" if kind else "stamps fit the ROS clock again"
        news = {about: text for about, text in news.items() if text}
        self._kind, self.doubt = kind, doubt
        if kind:
            age = max(0.0, waited)
        return StampCheck(age, self._exceeded(age), bool(kind), "; ".join(news.values()), " ".join(news))

    def _exceeded(self, age: float) -> bool:
        return 0 < self.max_age < age

    def _notice_stamp(self, stamp_ns: int, age: float) -> None:
        """Keep in mind whether stamps went back, until one fits again."""
        before, self._stamp_ns = self._stamp_ns, stamp_ns
        if before is not None and (before - stamp_ns) / 1e9 > _BACK_SECONDS:
            self._back, self._suspects = (before - stamp_ns) / 1e9, 0
        if self._back and self._exceeded(age):
            self._suspects += 1
        else:
            self._back, self._suspects = 0.0, 0

    def _notice_clock(self, now_ns: int) -> str:
        before, self._now_ns = self._now_ns, now_ns
        back = 0.0 if before is None else (before - now_ns) / 1e9
        return f"the ROS clock went back by {back:.1f} s" if back > _BACK_SECONDS else ""

    def _doubt(self, stamp_ns: int, now_ns: int, age: float) -> tuple[str, str]:
        """Kind of doubt and its description; empty when the stamp is believed."""
        if stamp_ns == 0:
            return "unstamped", f"frames have no stamp; {_REMEDY}"
        if now_ns == 0:
            return "no clock", "use_sim_time is set and nothing has come on /clock"
        if age < -_AHEAD_SECONDS:
            return "ahead", f"stamps lie {-age:.1f} s in the future; {_REMEDY}"
        if age >= LONGEST_LATENCY:
            return "epoch", f"stamps lie {age:.0f} s in the past, so they are of another clock; {_REMEDY}"
        if self._suspects >= _PATIENCE:
            return "back", f"stamps went back by {self._back:.1f} s and are {age:.1f} s behind the ROS clock; {_REMEDY}"
        return "", ""
