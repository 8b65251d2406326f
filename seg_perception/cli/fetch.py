"""`seg_perception fetch`: bring a model of the catalogue, and make it a canonical one."""

from __future__ import annotations

import argparse
import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from seg_perception.core.errors import BackendUnavailable, ConfigurationError

if TYPE_CHECKING:
    from seg_perception.core.catalogue import CatalogueEntry, Recipe
    from seg_perception.offboard.models.records import DownloadRecord

HELP = "bring a model by its name: download, verify, and prepare it for the node"
EPILOG = """\
The file is verified before anything opens it. An interrupted download goes on where it ended when the command is run
again; of a wrong file nothing is kept. Proxies are taken from HTTPS_PROXY and NO_PROXY.

A mirror is a folder or an address that holds the files under the names that `seg_perception models --json` gives as
`file`; --from names one, or for all fetches the environment variable SEG_PERCEPTION_MODELS.

Exit code: 0 if the model can be used by its name, 1 if not: also where the file has come but has to be exported first.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument("name", metavar="NAME", help="of the model, as `seg_perception models` lists it")
    parser.add_argument(
        "--accept-licence",
        action="store_true",
        help="accept the licence of a model whose licence is not a permissive one (it is shown without this)",
    )
    parser.add_argument(
        "--from",
        dest="origin",
        default="",
        metavar="DIR_OR_URL",
        help="take the file from this folder, file or address in place of the catalogue's address",
    )
    parser.add_argument(
        "--precision",
        nargs="+",
        choices=("fp32", "fp16", "int8"),
        default=["fp32"],
        help="fp16 makes the model NAME-fp16; several may be named; int8 needs images of yours, see `quantize` "
        "(default: fp32)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Fetch and prepare a model, and say what is where."""
    from seg_perception.core.catalogue import ONNX, SHIPPED, catalogue, fetched_path, shipped_path
    from seg_perception.offboard.models.fetch import fetch_file

    models = catalogue()
    entry = models.entry(arguments.name)
    if "int8" in arguments.precision:
        raise ConfigurationError(
            "--precision int8: INT8 is calibrated on images of your cameras, which `fetch` does not have; fetch the "
            f"model and run\n    seg_perception quantize {entry.name} --calibration IMAGES -o "
            f"{fetched_path(entry.name, 'int8')}\nafter which {entry.name}-int8 is a name, too"
        )
    precisions = list(dict.fromkeys(arguments.precision))
    report = partial(print, flush=True)
    if entry.export == SHIPPED:
        if precisions != ["fp32"]:
            raise ConfigurationError(f"--precision: {entry.name} comes with the package; leave --precision out")
        report(f"{entry.name} comes with the package: {shipped_path(entry)}")
        return 0
    _show(entry, report)
    _require_consent(entry, accepted=arguments.accept_licence)
    file, record = fetch_file(entry, arguments.origin, lambda line: report(f"file       {line}"))
    report(f"verified   {_verified(entry, record)}")
    if entry.export == ONNX:
        for precision in precisions:
            _prepare(entry, file, fetched_path(entry.name, precision), precision)
        return 0
    missing = [precision for precision in precisions if not fetched_path(entry.name, precision).is_file()]
    if missing:
        report("\n".join(_what_is_left(entry, models.recipes[entry.export], file, missing)))
        return 1
    ready = (fetched_path(entry.name, precision).stem for precision in precisions)
    report(f"ready      use it as model:={' or '.join(ready)}")
    return 0


def _show(entry: CatalogueEntry, report: partial[None]) -> None:
    accuracy = f"; mask AP {entry.mask_ap} ({entry.mask_ap_source})" if entry.mask_ap else ""
    report(f"model      {entry.name}: {entry.family}, {entry.task}, trained on {entry.data}{accuracy}")
    report(f"licence    code {entry.code_licence}, weights {entry.weights_licence}")


def _require_consent(entry: CatalogueEntry, *, accepted: bool) -> None:
    """Go on only if the licence is a permissive one or was accepted.

    Raises:
        ConfigurationError: it was not accepted.
    """
    if entry.restrictive_licences and not accepted:
        raise ConfigurationError(
            f"{entry.name}: its licence puts conditions on who uses or ships it "
            f"({', '.join(entry.restrictive_licences)}: {_conditions(entry)}). Nothing was downloaded. "
            f"If you accept the licence, run\n    seg_perception fetch {entry.name} --accept-licence"
        )


def _conditions(entry: CatalogueEntry) -> str:
    known = [_CONDITIONS[licence] for licence in (entry.weights_licence, entry.code_licence) if licence in _CONDITIONS]
    return known[0] if known else "read it before you use the model"


_CONDITIONS = {
    "AGPL-3.0": "whoever ships a product with it, or offers it over a network, has to offer the source of the whole "
    "under the same licence",
    "CC-BY-NC-4.0": "not for commercial use",
    "unknown": "nobody says what is allowed",
}


def _verified(entry: CatalogueEntry, record: DownloadRecord) -> str:
    if not entry.checksum.kind:
        return (
            "NOT against a published checksum: there is none. The file was taken as it came; its sha256 is recorded, "
            f"and later fetches have to give the same\n           sha256 {record.sha256}"
        )
    weak = "" if entry.checksum.kind == "sha256" else f"; sha256 {record.sha256}"
    return f"against the published {entry.checksum}{weak}"


def _prepare(entry: CatalogueEntry, file: Path, destination: Path, precision: str) -> None:
    """Make a file of a known family the canonical model of that name."""
    try:
        from seg_perception.offboard.toolchain.prepare import PrepareOptions, prepare
    except ImportError as error:
        raise BackendUnavailable(
            f"{file} is here; to prepare it `fetch` needs the Python package onnx ({error}): pip install onnx"
        ) from error
    from seg_perception.core.class_tables import find_class_table, load_class_table

    table = load_class_table(find_class_table(entry.classes, ()))
    prepare(file, destination, PrepareOptions(classes=table, family=entry.family, precision=precision), report=print)
    print(f"wrote      {destination} ({destination.stat().st_size / 1e6:.1f} MB); use it as model:={destination.stem}")


def _what_is_left(entry: CatalogueEntry, recipe: Recipe, file: Path, precisions: list[str]) -> list[str]:
    """Return how to get from a checkpoint to the model, step by step."""
    from seg_perception.core.catalogue import fetched_path

    paths = {precision: fetched_path(entry.name, precision) for precision in precisions}
    return [
        f"NOT READY  {file.name} is a checkpoint, not ONNX, and this version cannot export it by itself yet. In an",
        "           environment of its own, with the family's own exporter:",
        f"    pip install {recipe.packages}",
        *(f"    {line}" for line in recipe.steps(shlex.quote(str(file)), entry.variant)),
        "           then, here, with the ONNX file that it wrote:",
        *(
            f"    seg_perception prepare EXPORT.onnx --family {entry.family} --classes {entry.classes} "
            f"{'' if precision == 'fp32' else f'--precision {precision} '}-o {shlex.quote(str(path))}"
            for precision, path in paths.items()
        ),
        f"           after which model:={' or '.join(path.stem for path in paths.values())} is found",
    ]
