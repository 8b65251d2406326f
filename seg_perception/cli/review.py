"""`seg_perception review`: reviewed labels back in, and how far people agreed with the model's."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "take reviewed labels in: what training takes, and how far people agreed with the model's labels"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "reviewed", type=Path, metavar="REVIEWED",
        help="COCO's JSON, XML or ZIP of CVAT (CVAT for images 1.1, COCO 1.0), or a folder with LabelMe's files",
    )  # fmt: skip
    parser.add_argument(
        "--against", type=Path, required=True, metavar="DATASET", help="what `seg_perception label` made for the review"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder for the results")


def run(arguments: argparse.Namespace) -> int:
    """Compare, write and print."""
    from seg_perception.core.errors import ConfigurationError
    from seg_perception.core.text import aligned
    from seg_perception.offboard.label.coco import INSTANCES
    from seg_perception.offboard.label.dataset import IMAGES
    from seg_perception.offboard.label.review import review
    from seg_perception.offboard.label.review_report import HEADER, notes, rows, write_review

    for labels in (arguments.reviewed, arguments.against / INSTANCES):
        if (arguments.output / INSTANCES).resolve() == labels.resolve():
            raise ConfigurationError(f"-o {arguments.output}: {labels} would be written over; choose another folder")
    found = review(arguments.reviewed, arguments.against)
    write_review(found, arguments.against, arguments.output)
    print("\n".join(aligned([HEADER, *rows(found)])))
    for note in notes(found):
        print(note)
    print(f"results in {arguments.output}: agreement.html, agreement.json, instances.json")
    print(f"to train: make train DATA={arguments.output / 'instances.json'} IMAGES={arguments.against / IMAGES}")
    return 0
