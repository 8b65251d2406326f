"""The architecture: imports point down only, and the light parts stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib.util import resolve_name
from pathlib import Path
from typing import NamedTuple

import pytest

from seg_perception.onboard.backend.registry import BACKENDS
from tools.layers import CONTRIBUTING, LAYERS, with_layers

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "seg_perception"

RANK = {room: rank for rank, layer in enumerate(reversed(LAYERS)) for room in layer.rooms}
BOTTOM = LAYERS[-1].rooms

ROS = {"rclpy", "rcl_interfaces", "cv_bridge", "ament_index_python", "diagnostic_updater", "message_filters",
       "builtin_interfaces", "action_msgs", "diagnostic_msgs", "geometry_msgs", "lifecycle_msgs", "sensor_msgs",
       "std_msgs", "std_srvs", "vision_msgs"}  # fmt: skip
GPU = {"tensorrt", "tensorrt_rtx", "tensorrt_lean", "pycuda", "cuda"}
# Which parts may import which heavy package.
HOMES = {
    **{name: {"onboard.ros"} for name in ROS},
    **{name: {"onboard.backend", "offboard.toolchain"} for name in GPU},
    "openvino": {"onboard.backend"},
    "onnxruntime": {"onboard.backend", "offboard.toolchain"},
    "onnx": {"offboard.toolchain"},
    "onnx_ir": {"offboard.toolchain"},
    "jsonschema": {"core.manifest"},
    "rosbags": {"offboard.data", "offboard.streetworld", "offboard.replay"},
    "mcap": {"offboard.data", "offboard.replay"},
    "pycocotools": {"offboard.metrics"},
    "ray": {"offboard.fleet"},
    "requests": {"offboard.models"},
    "urllib3": {"offboard.models"},
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
    """The room a module belongs to: `onboard.ros`, `core.frame`, `cli`, ...; empty for the package itself."""
    names = module.split(".")[1:]
    return ".".join(names[:2] if names and names[0] in ("core", "onboard", "offboard") else names[:1])


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


@cache
def own_imports() -> list[Import]:
    """Every import of the package."""
    return [
        found
        for path in sorted((ROOT / PACKAGE).rglob("*.py"))
        for found in imports_of(path.relative_to(ROOT), path.read_text(encoding="utf-8"))
    ]


def offenders(places: Iterable[Import]) -> list[str]:
    return sorted({f"{found.place}: {found.importer} imports {found.imported}" for found in places})


def homeless(imports: Iterable[Import]) -> list[str]:
    """Imports in or of a part that no layer has."""
    known = {"", "core", "onboard", "offboard", *RANK}

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
        if importer.startswith("core.") and RANK.get(importer) == RANK[imported]:
            return True
        return importer in RANK and RANK[imported] < RANK[importer]

    return offenders(found for found in imports if found.own and not allowed(found))


def of_the_node(imports: Iterable[Import]) -> list[str]:
    """Imports of the node by anything else: whoever needs rclpy starts a process of its own."""
    node = "onboard.ros"
    return offenders(found for found in imports if part_of(found.imported) == node != part_of(found.importer))


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
        homes = HOMES.get(top, {"onboard.ros"} if top.endswith(("_msgs", "_srvs", "_interfaces")) else None)
        return homes is not None and part_of(found.importer) not in homes

    return offenders(found for found in imports if is_stray(found))


Rule = Callable[[Iterable[Import]], list[str]]
RULES: tuple[Rule, ...] = (homeless, upward, of_the_node, across_backends, beyond_numpy, by_the_package, stray)


@pytest.mark.parametrize("rule", RULES)
def test_the_package_keeps_the_rule(rule: Rule):
    assert rule(own_imports()) == []


def test_the_diagram_of_the_layers_is_up_to_date():
    text = CONTRIBUTING.read_text(encoding="utf-8")
    assert with_layers(text) == text, "run `python -m tools.layers`"


def test_the_contract_layer_has_no_cycle():
    edges = {(part_of(found.importer), part_of(found.imported)) for found in own_imports() if found.own}
    left = set(BOTTOM)
    while left:
        free = {part for part in left if not any((part, other) in edges for other in left - {part})}
        assert free, f"these import one another: {sorted(left)}"
        left -= free


@pytest.mark.parametrize(("path", "text", "broken"), [
    ("onboard/pipeline/made_up.py", "from seg_perception.offboard.toolchain.prepare import prepare", upward),
    ("onboard/pipeline/made_up.py", "from ...offboard import toolchain", upward),
    ("onboard/pipeline/made_up.py", "import seg_perception.cli.main", upward),
    ("onboard/ros/made_up.py", "from seg_perception.offboard.data import images", upward),
    ("onboard/backend/made_up.py", "def f():\n    from ..pipeline.segmenter import Segmenter", upward),
    ("onboard/backend/made_up.py", "if TYPE_CHECKING:\n    from ..pipeline import overlay", upward),
    ("onboard/backend/made_up.py", "import_module('..pipeline.overlay', __package__)", upward),
    ("onboard/backend/made_up.py", "importlib.import_module('seg_perception.onboard.pipeline')", upward),
    ("offboard/data/made_up.py", "from ..metrics.masks import to_rle", upward),
    ("offboard/metrics/made_up.py", "from ..evaluation.coco import CocoSet", upward),
    ("offboard/toolchain/made_up.py", "from ..replay import run", upward),
    ("offboard/models/made_up.py", "from ..toolchain.prepare import prepare", upward),
    ("offboard/evaluation/made_up.py", "from ..toolchain.prepare import prepare", upward),
    ("onboard/ros/made_up.py", "from seg_perception.cli.main import main", upward),
    ("core/frame.py", "from .encodings.raw import view", upward),
    ("cli/made_up.py", "from seg_perception.onboard.ros.main import main", of_the_node),
    ("offboard/toolchain/families/made_up.py", "from seg_perception.onboard.ros import node", of_the_node),
    ("onboard/ros/made_up.py", "import requests", stray),
    ("onboard/backend/host/onnxruntime.py", "from .openvino import OpenVinoRunner", across_backends),
    ("onboard/backend/host/onnxruntime.py", "from . import openvino", across_backends),
    ("onboard/backend/host/onnxruntime.py", "import seg_perception.onboard.backend.host.openvino", across_backends),
    ("onboard/backend/registry.py", "from .host.onnxruntime import OrtRunner", across_backends),
    ("core/frame.py", "import cv2", beyond_numpy),
    ("core/classes.py", "try:\n    import yaml\nexcept ImportError:\n    pass", beyond_numpy),
    ("__init__.py", "import numpy", by_the_package),
    ("onboard/pipeline/made_up.py", "from rclpy.node import Node", stray),
    ("cli/made_up.py", "import sensor_msgs.msg", stray),
    ("cli/made_up.py", "import another_msgs.msg as msg", stray),
    ("core/encodings/made_up.py", "def f():\n    from cv_bridge import CvBridge", stray),
    ("offboard/data/made_up.py", "from builtin_interfaces.msg import Time", stray),
    ("offboard/toolchain/made_up.py", "import rcl_interfaces.msg", stray),
    ("onboard/pipeline/made_up.py", "import openvino", stray),
    ("core/frame.py", "import jsonschema", stray),
    ("utils/made_up.py", "import numpy", homeless),
    ("onboard/utils.py", "import numpy", homeless),
    ("cli/made_up.py", "from ..utils import thing", homeless),
])  # fmt: skip
def test_a_violation_is_found_by_its_rule_alone(path: str, text: str, broken: Rule):
    imports = list(imports_of(Path(PACKAGE, path), text))
    assert [rule for rule in RULES if rule(imports)] == [broken]


@pytest.mark.parametrize(("path", "text"), [
    ("cli/made_up.py", "from .. import __version__\nfrom ..offboard.toolchain.prepare import prepare\nimport tqdm"),
    ("onboard/ros/made_up.py", "import rclpy\nfrom . import messages\nfrom ..pipeline.segmenter import Segmenter"),
    ("onboard/ros/made_up.py", "from sensor_msgs.msg import Image\nfrom std_srvs.srv import Trigger"),
    ("onboard/pipeline/made_up.py", "import cv2\nfrom ..backend.base import Backend\nfrom .overlay import paint"),
    ("onboard/backend/host/onnxruntime.py", "import onnxruntime\nfrom ..base import RunOptions\nfrom . import runner"),
    ("offboard/toolchain/families/made_up.py", "import onnx\nfrom ..formulas import GraphBuilder\nfrom . import Match"),
    ("core/contract.py", "import json\nimport numpy as np\nfrom .errors import ConfigurationError"),
    ("__init__.py", "from __future__ import annotations"),
])  # fmt: skip
def test_what_points_down_is_accepted(path: str, text: str):
    imports = list(imports_of(Path(PACKAGE, path), text))
    assert [rule for rule in RULES if rule(imports)] == []


def test_the_reader_of_imports_reads_them():
    """The tests above prove nothing if imports are overlooked."""
    names = {(found.importer, found.imported) for found in own_imports()}
    parts = {part_of(found.importer) for found in own_imports()}
    assert {"cli", "onboard.ros", "offboard.toolchain", "onboard.pipeline", "offboard.data"} <= parts
    assert (f"{PACKAGE}.core.encodings.raw", f"{PACKAGE}.core.frame.Frame") in names
    assert (f"{PACKAGE}.core.encodings.raw", "cv2") in names
    assert (f"{PACKAGE}.onboard.pipeline.segmenter", f"{PACKAGE}.onboard.backend.base.Backend") in names
    assert (f"{PACKAGE}.onboard.ros.convert", "cv_bridge.CvBridge") in names  # imported within a function


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
