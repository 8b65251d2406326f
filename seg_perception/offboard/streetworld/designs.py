"""Which actor designs may be in a world: some are kept from training, so that a test shows what was never seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from seg_perception.core.errors import ConfigurationError

from .actors.cycles import CycleDesign
from .actors.people import PersonDesign
from .actors.signals import LightDesign, SignDesign
from .actors.vehicles import VehicleDesign
from .colours import CLOTHES, PAINTS, Colour

# "seen": those for training. "unseen": only the others. "all": both, as often as chance has it.
DESIGNS = ("all", "seen", "unseen")
# Of cars a whole shape, of motorcycles another; of all vehicles the dark red and the green ones.
_UNSEEN_STYLES = ("hatchback", "scooter")
_UNSEEN_PAINTS = (7, 12)
_UNSEEN_CLOTHES = (8, 10, 12)
_UNSEEN_SIGNS = ("no_entry", "priority", "crossing")
_MOST_TRIES = 1000

CastDesign = VehicleDesign | CycleDesign | PersonDesign | SignDesign | LightDesign
D = TypeVar("D", VehicleDesign, CycleDesign, PersonDesign, SignDesign, LightDesign)


def is_unseen(design: CastDesign) -> bool:
    """Return whether a design is kept from training.

    Those are hatchbacks, scooters, any vehicle painted dark red or green, people in a long coat with a bag or whose top
    has one of three colours, three kinds of signs, and traffic lights in an ochre housing with a board.
    """
    match design:
        case VehicleDesign() | CycleDesign():
            return design.style in _UNSEEN_STYLES or _nearest(PAINTS, design.paint) in _UNSEEN_PAINTS
        case PersonDesign():
            coat_and_bag = design.coat >= 0.6 and design.bag is not None
            return coat_and_bag or _nearest(CLOTHES, design.top) in _UNSEEN_CLOTHES
        case SignDesign():
            return design.kind in _UNSEEN_SIGNS
        case LightDesign():
            return design.board and max(design.housing) > 100


def cast(designs: str, draw: Callable[[], D]) -> D:
    """Draw until a design may be in a world of these `DESIGNS`; for "all" the first one drawn.

    Raises:
        ConfigurationError: none of very many is allowed: `draw` leaves no choice.
    """
    for _ in range(_MOST_TRIES):
        design = draw()
        if designs == "all" or is_unseen(design) == (designs == "unseen"):
            return design
    raise ConfigurationError(f"streetworld: no {designs} design among {_MOST_TRIES} like {design}")


def _nearest(colours: tuple[Colour, ...], colour: Colour) -> int:
    distances = np.square(np.subtract(colours, colour)).sum(axis=1)
    return int(distances.argmin())
