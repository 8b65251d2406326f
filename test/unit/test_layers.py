"""The architecture: imports point down only, and the light parts stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib.util import resolve_name
from pathlib import Path
from typing import NamedTuple

import pytest

from seg_perception.backend.registry import BACKENDS

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "seg_perception"

# From the top: a module may import from the rows below its own, and from its own package.
LAYERS = (
    ("cli", "ros"),
    ("fleet",),
    ("toolchain", "replay", "label", "streetworld", "doctor", "models"),
    ("report",),
    ("evaluation",),
    ("pipeline",),
    ("backend",),
    ("sources", "metrics"),
    ("messages",),
    ("onnx_files", "manifest", "contract", "frame", "geometry", "instances", "classes", "files", "text", "interpreter",
     "errors"),
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
    "jsonschema": {"manifest"},
    "rosbags": {"sources", "streetworld", "replay"},
    "mcap": {"sources", "replay"},
    "pycocotools": {"metrics"},
    "ray": {"fleet"},
    "requests": {"models"},
    "urllib3": {"models"},
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


def imports_of(path: Path, text: str) -> Iterator[Import]:
    """Every import of a file, also those within functions, for type checking only and by a name in quotes.

    Args:
        path: of the file, relative to the checkout.
        text: its source.
    """
    module = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(text)):
        place = f"{path}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import):
            yield from (Import(module, alias.name, place) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            # What is named may be a module as well as something in one: `from ..backend import ort`.
            yield from (Import(module, f"{source}.{alias.name}", place) for alias in node.names)
        elif isinstance(node, ast.Call) and (name := loaded_by(node)):
            yield Import(module, resolve_name(name, package), place)


def loaded_by(call: ast.Call) -> str:
    """The name in quotes that a call of `import_module` or `__import__` loads; empty for other calls."""
    function = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    argument = call.args[0] if call.args else None
    if function in ("import_module", "__import__") and isinstance(argument, ast.Constant):
        return str(argument.value)
    return ""


IMPORTS = [
    found
    for path in sorted((ROOT / PACKAGE).rglob("*.py"))
    for found in imports_of(path.relative_to(ROOT), path.read_text(encoding="utf-8"))
]


def offenders(places: Iterable[Import]) -> list[str]:
    return sorted({f"{found.place}: {found.importer} imports {found.imported}" for found in places})


def homeless(imports: Iterable[Import]) -> list[str]:
    """Imports in or of a part that no layer has."""
    known = {"", *RANK}

    def has_place(module: str) -> bool:
        # What the package itself holds, such as its version, is no part.
        return part_of(module) in known or part_of(module).startswith("__")

    return offenders(
        found for found in imports if not has_place(found.importer) or (found.own and not has_place(found.imported))
    )


def upward(imports: Iterable[Import]) -> list[str]:
    """Imports within the package that point up or sideways."""

    def allowed(found: Import) -> bool:
        importer, imported = part_of(found.importer), part_of(found.imported)
        if imported == importer or imported not in RANK:
            return True
        if importer in BOTTOM and imported in BOTTOM:
            return True
        return importer in RANK and RANK[imported] < RANK[importer]

    return offenders(found for found in imports if found.own and not allowed(found))


def across_backends(imports: Iterable[Import]) -> list[str]:
    """Imports of a backend by another one, or by what the backends share."""
    backends = {entry.module for entries in BACKENDS.values() for entry in entries}

    def backend_of(module: str) -> str:
        return next((each for each in backends if module == each or module.startswith(f"{each}.")), "")

    return offenders(
        found
        for found in imports
        if backend_of(found.imported) and backend_of(found.imported) != backend_of(found.importer)
    )


def beyond_numpy(imports: Iterable[Import]) -> list[str]:
    """Imports of the contract layer other than NumPy, the standard library, and what is read with jsonschema."""
    allowed = {"numpy", "jsonschema", PACKAGE, *sys.stdlib_module_names}
    return offenders(
        found for found in imports if part_of(found.importer) in BOTTOM and found.imported.split(".")[0] not in allowed
    )


def by_the_package(imports: Iterable[Import]) -> list[str]:
    """Imports of the package's own `__init__`."""
    return offenders(
        found for found in imports if found.importer == PACKAGE and found.imported.split(".")[0] != "__future__"
    )


def stray(imports: Iterable[Import]) -> list[str]:
    """Imports of heavy packages by parts that have no business with them."""

    def is_stray(found: Import) -> bool:
        top = found.imported.split(".")[0]
        homes = HOMES.get(top, {"ros"} if top.endswith(("_msgs", "_srvs", "_interfaces")) else None)
        return homes is not None and part_of(found.importer) not in homes

    return offenders(found for found in imports if is_stray(found))


Rule = Callable[[Iterable[Import]], list[str]]
RULES: tuple[Rule, ...] = (homeless, upward, across_backends, beyond_numpy, by_the_package, stray)


@pytest.mark.parametrize("rule", RULES)
def test_the_package_keeps_the_rule(rule: Rule):
    assert rule(IMPORTS) == []


def test_the_contract_layer_has_no_cycle():
    edges = {(part_of(found.importer), part_of(found.imported)) for found in IMPORTS if found.own}
    left = set(BOTTOM)
    while left:
        free = {part for part in left if not any((part, other) in edges for other in left - {part})}
        assert free, f"these import one another: {sorted(left)}"
        left -= free


@pytest.mark.parametrize(("path", "text", "broken"), [
    ("pipeline/made_up.py", "from ..toolchain.prepare import prepare", upward),
    ("pipeline/made_up.py", "from .. import toolchain", upward),
    ("pipeline/made_up.py", "import seg_perception.cli.main", upward),
    ("pipeline/made_up.py", "from seg_perception import ros", upward),
    ("backend/made_up.py", "def f():\n    from ..pipeline.paint import paint", upward),
    ("backend/made_up.py", "if TYPE_CHECKING:\n    from ..pipeline import paint", upward),
    ("backend/made_up.py", "import_module('..pipeline.paint', __package__)", upward),
    ("backend/made_up.py", "importlib.import_module('seg_perception.pipeline')", upward),
    ("sources/made_up.py", "from ..metrics.boxes import box_iou", upward),
    ("metrics/made_up.py", "from ..backend.base import Backend", upward),
    ("cli/made_up.py", "from ..ros.main import main", upward),
    ("ros/made_up.py", "from ..cli.main import main", upward),
    ("toolchain/made_up.py", "from ..replay import run", upward),
    ("models/made_up.py", "from ..toolchain.prepare import prepare", upward),
    ("ros/made_up.py", "import requests", stray),
    ("evaluation/made_up.py", "from ..toolchain.prepare import prepare", upward),
    ("toolchain/families/made_up.py", "from ...ros import node", upward),
    ("frame.py", "from .sources.encodings import view", upward),
    ("backend/ort.py", "from .openvino import open_model", across_backends),
    ("backend/ort.py", "from . import openvino", across_backends),
    ("backend/ort.py", "from seg_perception.backend import openvino", across_backends),
    ("backend/ort.py", "import seg_perception.backend.openvino", across_backends),
    ("backend/registry.py", "from .ort import open_model", across_backends),
    ("frame.py", "import cv2", beyond_numpy),
    ("classes.py", "try:\n    import yaml\nexcept ImportError:\n    pass", beyond_numpy),
    ("__init__.py", "import numpy", by_the_package),
    ("pipeline/made_up.py", "from rclpy.node import Node", stray),
    ("cli/made_up.py", "import sensor_msgs.msg", stray),
    ("cli/made_up.py", "import another_msgs.msg as msg", stray),
    ("sources/made_up.py", "def f():\n    from cv_bridge import CvBridge", stray),
    ("sources/made_up.py", "from builtin_interfaces.msg import Time", stray),
    ("toolchain/made_up.py", "import rcl_interfaces.msg", stray),
    ("pipeline/made_up.py", "import openvino", stray),
    ("frame.py", "import jsonschema", stray),
    ("utils/made_up.py", "import numpy", homeless),
    ("cli/made_up.py", "from ..utils import thing", homeless),
])  # fmt: skip
def test_a_violation_is_found_by_its_rule_alone(path: str, text: str, broken: Rule):
    imports = list(imports_of(Path(PACKAGE, path), text))
    assert [rule for rule in RULES if rule(imports)] == [broken]


@pytest.mark.parametrize(("path", "text"), [
    ("cli/made_up.py", "from .. import __version__\nfrom ..toolchain.prepare import prepare\nimport tqdm"),
    ("ros/made_up.py", "import rclpy\nfrom . import messages\nfrom ..pipeline.segmenter import Segmenter"),
    ("ros/made_up.py", "from sensor_msgs.msg import Image\nfrom std_srvs.srv import Trigger"),
    ("pipeline/made_up.py", "import cv2\nfrom ..backend.base import Backend\nfrom .paint import paint"),
    ("backend/ort.py", "import onnxruntime\nfrom .base import Runner\nfrom . import batches"),
    ("toolchain/families/made_up.py", "import onnx\nfrom ..graph import GraphBuilder\nfrom . import Match"),
    ("contract.py", "import json\nimport numpy as np\nfrom .errors import ConfigurationError"),
    ("__init__.py", "from __future__ import annotations"),
])  # fmt: skip
def test_what_points_down_is_accepted(path: str, text: str):
    imports = list(imports_of(Path(PACKAGE, path), text))
    assert [rule for rule in RULES if rule(imports)] == []


def test_the_reader_of_imports_reads_them():
    """The tests above prove nothing if imports are overlooked."""
    names = {(found.importer, found.imported) for found in IMPORTS}
    parts = {part_of(found.importer) for found in IMPORTS}
    assert {"cli", "ros", "toolchain", "pipeline", "backend", "sources", "metrics"} <= parts
    assert (f"{PACKAGE}.sources.encodings", f"{PACKAGE}.frame.Frame") in names
    assert (f"{PACKAGE}.sources.encodings", "cv2") in names
    assert (f"{PACKAGE}.pipeline.segmenter", f"{PACKAGE}.backend.base.Backend") in names
    assert (f"{PACKAGE}.ros.convert", "cv_bridge.CvBridge") in names  # imported within a function


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
