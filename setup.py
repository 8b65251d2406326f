"""Install script of the ament_python package `seg_perception`."""

import ast
from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = "seg_perception"
HERE = Path(__file__).resolve().parent
# Files below these folders that users look up through the ament index.
SHARED_FOLDERS = ("launch", "config", "engines")


def package_version() -> str:
    """Reads `__version__` without importing the package, whose dependencies may be absent."""
    source = (HERE / PACKAGE / "__init__.py").read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__version__":
            return str(ast.literal_eval(node.value))
    raise SystemExit(f"setup.py: expected `__version__ = ...` in {PACKAGE}/__init__.py, found none")


def shared_files() -> "list[tuple[str, list[str]]]":
    """Returns (destination, sources) for each folder that has files, with its structure kept."""
    entries = []
    for top in SHARED_FOLDERS:
        folders = [HERE / top, *sorted(p for p in (HERE / top).rglob("*") if p.is_dir())]
        for folder in folders:
            if not folder.is_dir() or folder.name == "__pycache__":
                continue
            files = sorted(
                path.relative_to(HERE).as_posix()
                for path in folder.iterdir()
                # Weights are for training, in a checkout.
                if path.is_file() and not path.name.startswith(".") and path.suffix != ".safetensors"
            )
            if files:
                entries.append((f"share/{PACKAGE}/{folder.relative_to(HERE).as_posix()}", files))
    return entries


setup(
    name=PACKAGE,
    version=package_version(),
    description="Per-instance masks of road users and traffic control from camera images",
    license="Apache-2.0",
    url="https://github.com/seg-perception/seg_perception",
    maintainer="seg_perception developers",
    maintainer_email="seg-perception@users.noreply.github.com",
    python_requires=">=3.10",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    package_data={PACKAGE: ["py.typed", "core/*.schema.json", "onboard/backend/tensorrt/cuda/kernels/*.cu*"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        *shared_files(),
    ],
    zip_safe=False,
    # On a ROS distribution rosdep supplies these from package.xml; pip leaves
    # them alone when they are present.
    install_requires=["setuptools", "numpy", "PyYAML", "jsonschema", "psutil", "tqdm"],
    extras_require={
        # What rosdep has no key for. One of the first two runs a model on a CPU.
        "openvino": ["openvino"],
        "onnxruntime": ["onnxruntime"],
        "toolchain": ["onnx", "onnxruntime"],
        # Bags as input of commands, and those that `replay` and `streetworld --bag` make.
        "bags": ["rosbags", "mcap", "protobuf"],
        # H.264, H.265, VP9 and AV1 in bags.
        "video": ["av"],
        # Many bags at once: `--executor ray`.
        "fleet": ["ray"],
        # `seg_perception fetch`.
        "models": ["requests"],
        # Average precision on labelled images.
        "evaluation": ["pycocotools"],
        # For use without ROS; elsewhere python3-opencv comes through rosdep.
        # OpenCV 5 changed the constants that cv_bridge's tables are made of.
        "opencv": ["opencv-python-headless<5"],
        # TensorRT itself comes from JetPack or NVIDIA's repositories: its PyPI
        # packages are not wheels, so only what accompanies it is listed.
        "tensorrt": ["pycuda", "cuda-bindings", "nvidia-cuda-nvrtc"],
        "tensorrt-rtx": ["tensorrt-rtx-cu12>=1.4", "pycuda", "cuda-bindings", "nvidia-cuda-nvrtc"],
    },
    entry_points={
        "console_scripts": [
            f"segmenter = {PACKAGE}.onboard.ros.main:main",
            f"fusion = {PACKAGE}.onboard.ros.fusion.main:main",
            f"{PACKAGE} = {PACKAGE}.cli.main:main",
        ],
    },
)
