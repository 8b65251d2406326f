"""A folder in which a module of somebody else waits under each name that a command may import."""

from __future__ import annotations

from pathlib import Path

NAMES = ("json", "tqdm", "numpy", "argparse", "shutil", "yaml", "cv2", "rclpy", "onnx", "sitecustomize", "ray")
_SPRUNG = "sprung"


def set_traps(folder: Path) -> Path:
    """Make the folder, to be the current one of a process."""
    folder.mkdir()
    for path in (*(folder / f"{name}.py" for name in NAMES), folder / "seg_perception" / "__init__.py"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"open({str(folder / _SPRUNG)!r}, 'a').write(__file__ + '\\n')\n")
    return folder


def sprung(folder: Path) -> str:
    """Return the files of `set_traps` that were executed."""
    log = folder / _SPRUNG
    return log.read_text() if log.exists() else ""
