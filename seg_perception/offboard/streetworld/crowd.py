"""Who is in the street, and what they do there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from .actors.actor import Actor, PoleDesign, TreeDesign
from .actors.cycles import BICYCLE_SEAT, MOTORCYCLE_SEAT, random_cycle
from .actors.people import random_person
from .actors.signals import random_sign, random_traffic_light
from .actors.vehicles import random_vehicle
from .designs import cast
from .layout import Street
from .light import Light
from .raster import Placement

# How far the camera sees, in metres.
VIEW = 70.0
# In so many seconds few of those who drive as we do leave the view.
_SOON = 6.0


@dataclass(frozen=True, slots=True)
class _Queue:
    """Vehicles one behind another.

    Attributes:
        x: of their lane.
        gap: about this far apart, in metres.
        speed: of all of them.
        first, last: z of the first at second 0, and where there are no more.
    """

    x: float
    gap: float
    speed: float
    first: float
    last: float


class Crowd:
    """Puts actors into the street."""

    def __init__(
        self, random: np.random.Generator, street: Street, light: Light, lane: float, speed: float, seconds: float,
        tracks: Iterator[int], designs: str = "all",
    ) -> None:  # fmt: skip
        self._random, self._street, self._light, self._designs = random, street, light, designs
        self._lane, self._speed, self._seconds, self._tracks = lane, speed, seconds, tracks
        self._end = speed * seconds + VIEW
        # A direction that is a little wrong leads into houses, sooner or later.
        self._unsteady = float(seconds <= _SOON)
        self._queues: list[_Queue] = []

    def everybody(self) -> Iterator[Actor]:
        """All actors of a drive, scenery included."""
        yield from self._parked()
        yield from self._traffic()
        yield from self._walkers()
        yield from self._cyclists()
        for start in np.arange(-self._street.period, self._end, self._street.period):
            yield from self._crossing(float(start) + self._street.crossing)
        yield from self._signs()
        yield from self._green()
        if self._seconds > _SOON:
            yield from self._late_traffic()

    def _vehicle(
        self, place: Placement, speed: float = 0.0, style: Callable[[], str] = str, **more: float
    ) -> Actor:  # fmt: skip
        lamps = self._light.lamps and speed != 0
        design = cast(self._designs, lambda: random_vehicle(self._random, lamps, style()))
        return Actor(next(self._tracks), design.class_name, design, place, speed, **more)

    def _walker(self, place: Placement, speed: float, **more: float) -> Actor:
        phase = float(self._random.random())
        design = cast(self._designs, lambda: random_person(self._random))
        return Actor(next(self._tracks), "pedestrian", design, place, speed, phase=phase, **more)

    def _cycle(
        self, place: Placement, speed: float, style: Callable[[], str] = str, rider: bool = True
    ) -> Iterator[Actor]:  # fmt: skip
        lamps = self._light.lamps and rider
        design = cast(self._designs, lambda: random_cycle(self._random, lamps, style()))
        yield Actor(next(self._tracks), design.class_name, design, place, speed)
        if rider:
            bicycle = design.style == "bicycle"
            person = cast(
                self._designs,
                lambda: random_person(self._random, helmet=not bicycle or bool(self._random.random() < 0.5)),
            )
            seat = BICYCLE_SEAT if bicycle else MOTORCYCLE_SEAT
            back = 0.22
            seated = Placement(
                place.x - back * np.sin(place.yaw), 0, place.z - back * np.cos(place.yaw), place.yaw
            )  # fmt: skip
            yield Actor(next(self._tracks), "rider", person, seated, speed, phase=0.5, seat=seat)

    def _parked(self) -> Iterator[Actor]:
        random, street = self._random, self._street
        if street.parking < 1:
            return
        share = random.uniform(0.05, 0.6)
        for side in (-1, 1):
            for z in np.arange(-10, self._end, 6.4).tolist():
                if street.in_crossing(z, 9) or random.random() > share:
                    continue
                x = side * (street.half_road - 1.15 + random.normal(0, 0.07))
                yaw = (0.0 if side > 0 else np.pi) + random.normal(0, 0.03) + (np.pi if random.random() < 0.08 else 0)
                place = Placement(x, 0, z + random.normal(0, 0.3), yaw)
                yield self._vehicle(place, style=self._parked_style)

    def _parked_style(self) -> str:
        rare = str(self._random.choice(("", "van", "truck"), p=(0.93, 0.05, 0.02)))
        return rare or str(self._random.choice(("sedan", "hatchback", "suv")))

    def _traffic(self) -> Iterator[Actor]:
        """Vehicles in the lanes: those ahead are hardly faster and never slower than we; others come towards us."""
        random, street = self._random, self._street
        for x in street.lane_centres():
            gap = random.uniform(18, 80)
            if x < 0:
                speed = float(random.uniform(5, 13))
                first, last = 5.0, VIEW + self._seconds * (speed + self._speed)
            else:
                own = x == self._lane
                speed = self._speed * float(random.uniform(1.0, 1.03) if own else random.uniform(0.75, 1.25))
                first, last = (9.0 if own else -15.0) + random.uniform(0, 15), VIEW
            queue = _Queue(x, gap, speed, first, last)
            self._queues.append(queue)
            yield from self._lined_up(queue)

    def _lined_up(self, queue: _Queue) -> Iterator[Actor]:
        random, z = self._random, queue.first
        while z < queue.last:
            where = queue.x + random.normal(0, 0.15)
            yaw = np.pi if queue.x < 0 else random.normal(0, 0.02) * self._unsteady
            if random.random() < 0.08:
                yield from self._cycle(
                    Placement(where, 0, z, yaw), queue.speed, lambda: str(random.choice(("motorcycle", "scooter")))
                )
            else:
                yield self._vehicle(Placement(where, 0, z, yaw), queue.speed)
            z += queue.gap * random.uniform(0.6, 1.6) + 7

    def _late_traffic(self) -> Iterator[Actor]:
        """Who drives in our direction and comes into view when others have left it.

        In other lanes those are slower ones, whom we overtake, and faster ones, who overtake us; in ours those who
        leave it before we are there.
        """
        for queue in self._queues:
            drift = (queue.speed - self._speed) * self._seconds
            if queue.x == self._lane:
                yield from self._leavers((VIEW - queue.first) / max(queue.speed - self._speed, 1e-9))
            elif queue.x > 0 and drift < 0:
                yield from self._lined_up(replace(queue, first=VIEW + 2 * queue.gap, last=VIEW - drift))
            elif queue.x > 0:
                yield from self._lined_up(replace(queue, first=-15 - drift, last=-15 - 2 * queue.gap))

    def _leavers(self, begin: float) -> Iterator[Actor]:
        """Slow vehicles ahead in our lane that turn off at a crossing; none before second `begin`."""
        random, street, speed = self._random, self._street, self._speed / 2
        for crossing in np.arange(street.crossing, self._end, street.period).tolist():
            turn_at = (crossing - random.uniform(20, 35)) / self._speed
            # At half our speed it is seen while we drive the length of the view.
            if not begin + VIEW / speed < turn_at < self._seconds or random.random() < 0.4:
                continue
            place = Placement(self._lane + random.normal(0, 0.15), 0, crossing - 5 - speed * turn_at, 0)
            yield self._vehicle(place, speed, turn_at=turn_at, turn=np.pi / 2, radius=5.0)

    def _walkers(self) -> Iterator[Actor]:
        random, street = self._random, self._street
        per_metre = random.choice((0.015, 0.03, 0.07))
        for side in (-1, 1):
            for _ in range(int(self._end * per_metre)):
                x = side * (street.half_road + random.uniform(0.4, street.walk - 0.3))
                z, ahead = random.uniform(3, self._end), random.random() < 0.5
                yaw = (0.0 if ahead else np.pi) + random.normal(0, 0.06) * self._unsteady
                speed = float(random.uniform(0.9, 1.7))
                if random.random() < 0.2:
                    yaw, speed = random.uniform(-np.pi, np.pi), 0.0
                for k in range(int(random.choice((1, 2, 3), p=(0.7, 0.22, 0.08)))):
                    yield self._walker(Placement(x + side * 0.1 * k, 0, z + 0.65 * k * (k % 2 or -1), yaw), speed)
        for _ in range(int(self._seconds / 8) + 2):
            yield from self._crosser(random.uniform(8, self._end), 3.0)

    def _crosser(self, z: float, spread: float) -> Iterator[Actor]:
        """Somebody who crosses the road while we come near."""
        random, street = self._random, self._street
        speed, side = float(random.uniform(1.0, 1.8)), int(random.choice((-1, 1)))
        when = max(0.0, (z - random.uniform(9, 35)) / self._speed)
        start = side * (random.uniform(-1, 1) * street.half_road + when * speed)
        yaw = -side * np.pi / 2 + random.normal(0, 0.15)
        yield self._walker(Placement(start, 0, z + random.normal(0, spread), yaw), speed)

    def _cyclists(self) -> Iterator[Actor]:
        random, street = self._random, self._street
        edge = street.lanes * street.lane_width - 0.55
        for side in (-1, 1):
            for _ in range(int(self._end / 60) + 1):
                speed = float(random.uniform(3, 6.5))
                z = random.uniform(6, self._end + (self._seconds * speed if side < 0 else 0))
                yield from self._cycle(Placement(side * edge, 0, z, 0 if side > 0 else np.pi), speed, lambda: "bicycle")
            for _ in range(int(self._end / 90)):
                x, z = side * (street.half_road + street.walk * 0.8), random.uniform(0, self._end)
                yaw = random.uniform(-np.pi, np.pi)
                for k in range(int(random.integers(1, 3))):
                    yield from self._cycle(Placement(x, 0, z + 0.7 * k, yaw), 0.0, rider=False)

    def _crossing(self, z: float) -> Iterator[Actor]:
        """Traffic, lights and people of one crossing street."""
        random, street = self._random, self._street
        near = street.half_road
        if random.random() < 0.8:
            yield from self._lights(z)
        for _ in range(int(random.integers(0, 4))):
            yield from self._crosser(z + float(random.choice((-1, 1))) * (street.cross_half + 2.5), 0.8)
        for side in (-1, 1):
            for k in range(int(random.integers(0, 4))):
                # They wait at their line, cross far ahead of us, or turn.
                lane = z - side * street.cross_half / 2
                x, yaw = side * (near + 4 + 6.5 * k), -side * np.pi / 2
                way = random.random()
                if way < 0.4:
                    yield self._vehicle(Placement(x, 0, lane, yaw))
                    continue
                speed = float(random.uniform(4, 8))
                when = max(0.0, (z - random.uniform(22, 60)) / self._speed)
                x += side * when * speed
                if way < 0.75 or (side > 0 and self._in_our_way(speed)):
                    yield self._vehicle(Placement(x, 0, lane, yaw), speed)
                else:
                    turn_at = (abs(x) - street.lane_width * 0.5 - 5) / speed
                    yield self._vehicle(Placement(x, 0, lane, yaw), speed, turn_at=turn_at, turn=np.pi / 2, radius=5.0)
        if random.random() < 0.5:
            x = float(random.choice((-1, 1))) * random.uniform(near - 1, near + 5)
            yield self._vehicle(Placement(x, 0, z + random.uniform(-3, 3), random.uniform(-np.pi, np.pi)))

    def _in_our_way(self, speed: float) -> bool:
        """Whether somebody who turns into the lane next to the middle is run over; for short drives not asked."""
        ours = self._lane < self._street.lane_width
        return self._seconds > _SOON and ours and speed < self._speed

    def _lights(self, z: float) -> Iterator[Actor]:
        random, street = self._random, self._street
        phase, state = float(random.random()), "off" if random.random() < 0.06 else "red"
        design = cast(self._designs, lambda: random_traffic_light(random, state))
        gantry = random.random() < 0.45

        def lamp(x: float, y: float, at: float, yaw: float, shift: float = 0.0) -> Actor:
            return Actor(
                next(self._tracks), "traffic light", design, Placement(x, y, at, yaw), phase=(phase + shift) % 1
            )

        for side, yaw, far in ((1, 0.0, street.cross_half + 4.0), (-1, np.pi, -street.cross_half - 4.0)):
            x = side * (street.half_road + 0.6)
            for place in (z - far, z + far - 1.5):
                yield Actor(0, "", PoleDesign(3.4, 0, 0.06), Placement(x, 0, place, 0))
                yield lamp(x, 2.9, place - 0.2 * np.cos(yaw), yaw)
            if gantry:
                reach = -side * (street.half_road - 0.4)
                at = z + far - 1.5
                yield Actor(0, "", PoleDesign(6.0, reach, 0.11), Placement(x, 0, at, 0))
                for lane in street.lane_centres()[street.lanes :]:
                    yield lamp(side * lane, 5.5, at - 0.2 * np.cos(yaw), yaw)
            yield lamp(x + 0.35 * side, 2.8, z + far - 1.5, side * np.pi / 2, 0.5)

    def _signs(self) -> Iterator[Actor]:
        random, street = self._random, self._street
        for side in (-1, 1):
            z = random.uniform(2, 15)
            while z < self._end:
                x = side * (street.half_road + random.uniform(0.35, 0.8))
                facing = 0.0 if random.random() < (0.85 if side > 0 else 0.45) else np.pi
                yaw, height = facing + random.normal(0, 0.12), random.uniform(2.1, 2.8)
                yield Actor(0, "", PoleDesign(height + 0.35), Placement(x, 0, z, 0))
                for k in range(1 + int(random.random() < 0.25)):
                    design = cast(self._designs, lambda: random_sign(random))
                    front = Placement(
                        x - 0.06 * np.sin(yaw), height - 0.95 * k * (design.size / 0.4), z - 0.06 * np.cos(yaw), yaw
                    )
                    yield Actor(next(self._tracks), "traffic sign", design, front)
                z += random.uniform(16, 55)

    def _green(self) -> Iterator[Actor]:
        random, street = self._random, self._street
        spacing = random.uniform(7, 22)
        for side in (-1, 1):
            for z in np.arange(0, self._end, spacing).tolist():
                if street.in_crossing(z, 4) or random.random() < 0.3:
                    continue
                number = int(random.integers(8))
                height = float(random.uniform(0.9, 1.8) if number % 4 == 3 else random.uniform(4.5, 8.5))
                x = side * (street.half_road + random.uniform(0.9, street.walk + 0.5))
                yield Actor(0, "", TreeDesign(number, height), Placement(x, 0, z + random.normal(0, 1), 0))
            for z in np.arange(12, self._end, 30).tolist():
                reach = -side * 1.8
                yield Actor(0, "", PoleDesign(7.5, reach, 0.08), Placement(side * (street.half_road + 0.5), 0, z, 0))
