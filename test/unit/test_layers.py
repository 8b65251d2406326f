"""The architecture: imports point down only, and the light parts stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from seg_perception.backend.registry import BACKENDS

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "seg_perception"

# From the top: a module may import from the rows below its own, and from its own package.
LAYERS = (
    ("cli", "ros"),
    ("toolchain", "evaluation", "replay", "label", "streetworld"),
    ("pipeline",),
    ("backend",),
    ("sources", "metrics"),
    ("contract", "frame", "geometry", "instances", "classes", "errors"),
)
BOTTOM = LAYERS[-1]
RANK = {part: rank for rank, layer in enumerate(reversed(LAYERS)) for part in layer}

ROS = {"rclpy", "rcl_interfaces", "cv_bridge", "ament_index_python", "diagnostic_updater", "message_filters",
       "builtin_interfaces", "action_msgs", "diagnostic_msgs", "geometry_msgs", "lifecycle_msgs", "sensor_msgs",
       "std_msgs", "std_srvs", "vision_msgs"}  # fmt: skip
GPU = {"tensorrt", "tensorrt_rtx", "tensorrt_lean", "pycuda", "cuda"}
# Which parts may import which heavy package.
HOMES = {
    **{name: {"ros"} for name in ROS},
    **{name: {"backend", "toolchain"} for name in GPU},
    "openvino": {"backend"},
    "onnxruntime": {"backend", "toolchain"},
    "onnx": {"toolchain"},
    "rosbags": {"sources"},
}


class Import(NamedTuple):
    """One import statement: who imports what, as dotted names, and where."""

    importer: str
    imported: str
    place: str

    @property
    def own(self) -> bool:
        return self.imported.split(".")[0] == PACKAGE


def part_of(module: str) -> str:
    """The part of the package a module belongs to: `sources`, `frame`, ...; empty for the package itself."""
    return ".".join(module.split(".")[1:2])


def imports_of(path: Path) -> Iterator[Import]:
    """Every import of a file, also those within functions and for type checking only."""
    relative = path.relative_to(ROOT).with_suffix("")
    module = ".".join(relative.parts).removesuffix(".__init__")
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        place = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import):
            yield from (Import(module, alias.name, place) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            # `from . import x` names modules (or the package's attributes) one by one.
            whole = source if node.module else ""
            yield from (Import(module, whole or f"{source}.{alias.name}", place) for alias in node.names)


IMPORTS = [found for path in sorted((ROOT / PACKAGE).rglob("*.py")) for found in imports_of(path)]


def offenders(places: Iterator[Import]) -> list[str]:
    return sorted({f"{found.place}: {found.importer} imports {found.imported}" for found in places})


def test_every_part_has_its_place_in_the_layers():
    parts = {part_of(found.importer) for found in IMPORTS} - {""}
    assert parts <= set(RANK)


def test_imports_point_down():
    def allowed(found: Import) -> bool:
        importer, imported = part_of(found.importer), part_of(found.imported)
        # What the package itself holds, such as its version, is everyone's.
        if imported == importer or imported not in RANK:
            return True
        if importer in BOTTOM and imported in BOTTOM:
            return True
        return importer in RANK and RANK[imported] < RANK[importer]

    assert offenders(found for found in IMPORTS if found.own and not allowed(found)) == []


def test_the_contract_layer_has_no_cycle():
    edges = {(part_of(found.importer), part_of(found.imported)) for found in IMPORTS if found.own}
    left = set(BOTTOM)
    while left:
        free = {part for part in left if not any((part, other) in edges for other in left - {part})}
        assert free, f"these import one another: {sorted(left)}"
        left -= free


def test_backends_never_import_one_another():
    backends = {entry.module for entries in BACKENDS.values() for entry in entries}

    def backend_of(module: str) -> str:
        return next((each for each in backends if module == each or module.startswith(f"{each}.")), "")

    assert offenders(
        found for found in IMPORTS
        if backend_of(found.imported) and backend_of(found.imported) != backend_of(found.importer)
    ) == []  # fmt: skip


def test_the_contract_layer_needs_numpy_only():
    allowed = {"numpy", PACKAGE, *sys.stdlib_module_names}
    assert offenders(
        found for found in IMPORTS if part_of(found.importer) in BOTTOM and found.imported.split(".")[0] not in allowed
    ) == []  # fmt: skip


def test_the_package_itself_imports_nothing():
    assert offenders(found for found in IMPORTS if found.importer == PACKAGE and found.imported != "__future__") == []


def test_heavy_packages_are_imported_only_where_they_are_needed():
    def stray(found: Import) -> bool:
        top = found.imported.split(".")[0]
        homes = HOMES.get(top, {"ros"} if top.endswith(("_msgs", "_srvs", "_interfaces")) else None)
        return homes is not None and part_of(found.importer) not in homes

    assert offenders(found for found in IMPORTS if stray(found)) == []


def test_the_reader_of_imports_reads_them():
    """The tests above prove nothing if imports are overlooked."""
    names = {(found.importer, found.imported) for found in IMPORTS}
    assert (f"{PACKAGE}.sources.encodings", f"{PACKAGE}.frame") in names
    assert (f"{PACKAGE}.sources.encodings", "cv2") in names
    assert (f"{PACKAGE}.pipeline.segmenter", f"{PACKAGE}.backend.base") in names
    assert (f"{PACKAGE}.ros.convert", "cv_bridge") in names  # imported within a function


# What must not be needed, made unfindable.
HIDE = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top in {hidden!r} or top.endswith("_msgs"):
            raise ModuleNotFoundError("hidden: " + name, name=name)
for name in list(sys.modules):
    if name.split(".")[0] in {hidden!r}:
        del sys.modules[name]
sys.meta_path.insert(0, Hidden())
"""
HEAVY = sorted(set(HOMES) | {"cv2", "yaml", "tqdm"})


def run_without(hidden: list[str], code: str) -> subprocess.CompletedProcess[str]:
    program = HIDE.format(hidden=set(hidden)) + code
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_importing_the_package_needs_nothing():
    done = run_without([*HEAVY, "numpy"], "import seg_perception; print(seg_perception.__version__)")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("part", BOTTOM)
def test_the_contract_layer_imports_without_heavy_packages(part):
    done = run_without(HEAVY, f"import {PACKAGE}.{part}")
    assert done.returncode == 0, done.stderr


def commands() -> list[str]:
    from seg_perception.cli.main import COMMANDS

    return ["", *COMMANDS]


@pytest.mark.parametrize("command", commands())
def test_help_needs_no_heavy_package(command):
    arguments = [*([command] if command else []), "--help"]
    code = f"""
from seg_perception.cli.main import main
try:
    main({arguments!r})
except SystemExit as done:
    assert done.code == 0, done.code
"""
    done = run_without(HEAVY, code)
    assert done.returncode == 0, done.stderr
    assert "usage: seg_perception" in done.stdout


def test_hiding_hides():
    """The tests above prove nothing if the packages could be imported all the same."""
    done = run_without(HEAVY, "import cv2")
    assert done.returncode != 0
    assert "hidden: cv2" in done.stderr
