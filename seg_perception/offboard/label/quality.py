"""Which frames need a person, and why."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .records import Category, LabelledFrame, QaFlag

QUALITY, QUALITY_TABLE = "quality.json", "quality.csv"
KINDS = {
    "unsure": "the score is near the threshold",
    "overlooked": "something scores just below the threshold, and is not labelled",
    "box_mask": "box and mask do not fit each other",
    "pieces": "the mask is in pieces",
    "flicker": "an object is seen in a single frame",
    "gap": "an object is seen before and after, but not here",
    "models": "another model says something else",
}


@dataclass(frozen=True, slots=True)
class Assessment:
    """One frame as a reviewer's list has it.

    Attributes:
        file_name: of the image.
        number: sum of the weights of its concerns; frames with the highest come first.
        concerns: what is to be looked at, the weightiest first.
    """

    file_name: str
    number: float
    concerns: tuple[QaFlag, ...]


def assess(frames: Iterable[LabelledFrame]) -> list[Assessment]:
    """Rank the frames of a data set by how much they need a person; of their masks nothing is kept."""
    assessments = []
    for frame in frames:
        flags = sorted(frame.concerns, key=lambda flag: -flag.weight)
        number = round(sum(flag.weight for flag in flags), 3)
        assessments.append(Assessment(frame.file_name, number, tuple(flags)))
    return sorted(assessments, key=lambda assessment: (-assessment.number, assessment.file_name))


def quality_bytes(assessed: Sequence[Assessment], counts: Counter[str], categories: Sequence[Category]) -> bytes:
    """The list for reviewers as JSON, with the counts of objects by category and of concerns by kind."""
    kinds = Counter(each.kind for frame in assessed for each in frame.concerns)
    content = {
        "frames": [{"rank": rank, **_plain(each)} for rank, each in enumerate(assessed, 1)],
        "kinds": {kind: {"words": words, "count": kinds[kind]} for kind, words in KINDS.items()},
        "objects": {each.name: counts[each.name] for each in categories},
    }
    return json.dumps(content, indent=1).encode()


def quality_table(assessed: Sequence[Assessment]) -> bytes:
    """The list for reviewers as a table: a frame in each line, with its three weightiest concerns in words."""
    text = io.StringIO(newline="")
    rows = csv.writer(text)
    rows.writerow(("rank", "file_name", "number", "concerns", "kinds", "words"))
    for rank, each in enumerate(assessed, 1):
        kinds = " ".join(f"{kind}:{count}" for kind, count in Counter(one.kind for one in each.concerns).items())
        words = "; ".join(one.words for one in each.concerns[:3])
        rows.writerow((rank, each.file_name, each.number, len(each.concerns), kinds, words))
    return text.getvalue().encode()


def _plain(each: Assessment) -> dict[str, Any]:
    concerns = [{**asdict(one), "weight": round(one.weight, 4)} for one in each.concerns]
    return {"file_name": each.file_name, "number": each.number, "concerns": concerns}
