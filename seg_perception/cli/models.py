"""`seg_perception models`: the catalogue of models by name."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from seg_perception.core.text import aligned

if TYPE_CHECKING:
    from seg_perception.core.catalogue import CatalogueEntry

HELP = "list the models that can be had by name: what they find, how well, their licences, and which are here"
EPILOG = """\
`fetched`: `ready` for a model that the node and every command take by its name, with the precisions that are here;
`file` for one whose file is here and has to be exported; `shipped` for those of the package.
`road classes`: how many of the model's classes belong to a road group. Mask AP is what its makers published, in
percent, and was not measured here. `*` marks licences that `fetch` asks you to accept.

JSON: `folder` (of fetched models) and `models`, each with `name`, `task`, `family`, `input` (height, width), `data`,
`classes`, `road_classes` by group, `mask_ap`, `mask_ap_source`, `code_licence`, `weights_licence`, `permissive`,
`bytes`, `export`, `urls`, `file` (its name in a mirror), `checksum`, `fetched` (precisions), `downloaded`, `shipped`.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument("--json", action="store_true", help="print one JSON object in place of the table")


def run(arguments: argparse.Namespace) -> int:
    """Print the catalogue."""
    from seg_perception.core.catalogue import catalogue, models_folder

    models = [_described(entry) for entry in catalogue().entries.values()]
    if arguments.json:
        print(json.dumps({"folder": str(models_folder()), "models": models}, indent=1))
        return 0
    heads = ("name", "task", "road classes", "mask AP", "licence of code, weights", "size", "fetched")
    print("\n".join(aligned([heads, *map(_row, models)], range(len(heads)))))
    print(f"\nfetched models are in {models_folder()}; `seg_perception fetch NAME` brings one")
    return 0


def _described(entry: CatalogueEntry) -> dict[str, Any]:
    """Return what there is to say of an entry, and what of it is here."""
    from seg_perception.core.catalogue import PRECISIONS, SHIPPED, fetched_path, shipped_path
    from seg_perception.core.class_tables import find_class_table, load_class_table
    from seg_perception.core.classes import ROAD_GROUPS
    from seg_perception.offboard.models.records import downloads_folder, read_record

    table = load_class_table(find_class_table(entry.classes, ()))
    groups = table.groups(table.class_names).tolist()
    shipped, record = entry.export == SHIPPED, read_record(entry)
    size = shipped_path(entry).stat().st_size if shipped else entry.size or (record.size if record else 0)
    return {
        "name": entry.name,
        "task": entry.task,
        "family": entry.family,
        "input": entry.input_size,
        "data": entry.data,
        "classes": len(groups),
        "road_classes": {group: groups.count(index) for index, group in enumerate(ROAD_GROUPS)},
        "mask_ap": entry.mask_ap,
        "mask_ap_source": entry.mask_ap_source,
        "code_licence": entry.code_licence,
        "weights_licence": entry.weights_licence,
        "permissive": not entry.restrictive_licences,
        "bytes": size or None,
        "export": entry.export,
        "urls": entry.urls,
        "file": entry.file,
        "checksum": str(entry.checksum),
        "fetched": [name for name in PRECISIONS if not shipped and fetched_path(entry.name, name).is_file()],
        "downloaded": (downloads_folder() / entry.file).is_file(),
        "shipped": shipped,
    }


def _row(model: Mapping[str, Any]) -> tuple[str, ...]:
    covered = [count for count in model["road_classes"].values() if count]
    licences = dict.fromkeys((model["code_licence"], model["weights_licence"]))
    state = "file" if model["downloaded"] else "-"
    if model["fetched"]:
        state = f"ready ({', '.join(model['fetched'])})"
    return (
        model["name"],
        model["task"],
        f"{sum(covered)} of {model['classes']}, {len(covered)} of {len(model['road_classes'])} groups",
        f"{model['mask_ap']:.1f}" if model["mask_ap"] else "-",
        ", ".join(licences) + ("" if model["permissive"] else " *"),
        f"{model['bytes'] / 1e6:.1f} MB" if model["bytes"] else "-",
        "shipped" if model["shipped"] else state,
    )
