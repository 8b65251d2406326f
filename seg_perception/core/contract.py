"""The contract between the toolchain and the runtime: what a canonical model takes, gives and says of itself.

Input `images`: uint8 `[B, H, W, 3]`, RGB, already resized to the network size.

Outputs of a model with instances (all shapes fixed but for a batch axis that may be dynamic):

    boxes   float32 `[B, K, 4]`      x1 y1 x2 y2 in network pixels
    scores  float32 `[B, K]`         descending; unused rows are 0; NaN where the network itself produced NaN or inf
    labels  int32   `[B, K]`         index into the class names
    masks   float32 or float16 `[B, K, h, w]`   logits; > 0 is inside

and of a model with a class map: `class_map` uint8 `[B, h, w]`, index into the class names, `NO_CLASS` for none,
`FAULTY_CELL` throughout where the network itself produced NaN or inf. Where a model has both, instances of things lie
over the class map, and it is the scores that tell of faults.

The specification travels as one JSON value under `METADATA_KEY`, in the ONNX file and in an engine's manifest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from .classes import fault_of_names
from .errors import ConfigurationError, NotCanonicalError
from .geometry import ResizeGeometry, ResizeSpec
from .text import is_printable, printable

CONTRACT_VERSION = 1
METADATA_KEY = "seg_perception"
# What `prepare` took for granted of the export, human-readable: a JSON object of texts, which nothing depends on.
READING_KEY = "seg_perception_reading"
OPSET = 19
INPUT_NAME = "images"
INSTANCE_OUTPUTS = ("boxes", "scores", "labels", "masks")
CLASS_MAP_OUTPUT = "class_map"
MASK_FRAMES = ("frame", "box")
# Values of the cells of a class map that are no class: the cell belongs to none; the network produced NaN or infinity.
NO_CLASS = 255
FAULTY_CELL = 254
# Beyond, a description is damaged or meant to do harm. Instances are numbers of 16 bits, where 0 is the background.
MOST_PIXELS, MOST_INSTANCES, MOST_COUNT, LONGEST_TEXT = 1 << 15, (1 << 16) - 1, 1 << 20, 200


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a canonical model says of itself.

    Attributes:
        family: the family of the source model, human-readable.
        class_names: in label order.
        things: for each class, whether it comes as instances (False: only in the class map).
        resize: how a camera image becomes the network input.
        network_height, network_width: size of the input in pixels.
        batch: the fixed batch size, or 0 where the batch axis is dynamic.
        max_instances: K, rows of the instance outputs; 0 for a model without them.
        mask_height, mask_width: h and w of `masks` (and of `class_map`).
        mask_frame: `frame` when the mask grid spans the whole network input, `box` when it spans each box.
        class_map: whether the model has a class map.
        nms_iou: IoU above which the in-graph suppression removes the weaker of two of a class; 0 for none.
        nms_candidates: K0, candidates the suppression looks at; 0 for none.
        nms_steps: iterations of the suppression: exact for suppression chains no longer than this.
        source_sha256: of the model file this one was made from.
        contract_version: of this description.
    """

    family: str
    class_names: tuple[str, ...]
    things: tuple[bool, ...]
    resize: ResizeSpec
    network_height: int
    network_width: int
    batch: int
    max_instances: int
    mask_height: int
    mask_width: int
    mask_frame: str
    class_map: bool = False
    nms_iou: float = 0.0
    nms_candidates: int = 0
    nms_steps: int = 0
    source_sha256: str = ""
    contract_version: int = CONTRACT_VERSION

    def __post_init__(self) -> None:
        for name in ("network_height", "network_width", "mask_height", "mask_width"):
            self._expect(name, 1, MOST_PIXELS)
        for name in ("batch", "nms_candidates", "nms_steps"):
            self._expect(name, 0, MOST_COUNT)
        self._expect("max_instances", 0, MOST_INSTANCES)
        for name in ("family", "source_sha256"):
            text = getattr(self, name)
            if len(text) > LONGEST_TEXT or not is_printable(text):
                raise NotCanonicalError(
                    f"{name}: expected at most {LONGEST_TEXT} characters without control characters, got "
                    f"{printable(text)}"
                )
        if not 0 <= self.nms_iou <= 1:
            raise NotCanonicalError(f"nms_iou: expected 0 to 1, got {self.nms_iou}")
        if not self.class_names or len(self.things) != len(self.class_names):
            raise NotCanonicalError(
                f"class_names: expected some, and one entry of `things` for each, got "
                f"{len(self.class_names)} names and {len(self.things)} entries"
            )
        if fault := fault_of_names(self.class_names):
            raise NotCanonicalError(f"class_names: {fault}")
        if self.mask_frame not in MASK_FRAMES:
            shown = printable(self.mask_frame)
            raise NotCanonicalError(f"mask_frame: expected {' or '.join(MASK_FRAMES)}, got {shown}")
        if self.class_map and len(self.class_names) > FAULTY_CELL:
            raise NotCanonicalError(
                f"class_map: expected at most {FAULTY_CELL} classes in its 8 bits, got {len(self.class_names)}"
            )
        if not self.max_instances and not self.class_map:
            raise NotCanonicalError("max_instances, class_map: expected instances, a class map or both, got neither")

    def _expect(self, name: str, least: int, most: int) -> None:
        value = getattr(self, name)
        if not least <= value <= most:
            raise NotCanonicalError(f"{name}: expected {least} to {most}, got {_shown(value)}")

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in the order in which backends return them."""
        instances = INSTANCE_OUTPUTS if self.max_instances else ()
        return (*instances, CLASS_MAP_OUTPUT) if self.class_map else instances

    def geometry(self, camera_width: int, camera_height: int) -> ResizeGeometry:
        """Return where camera images of a size lie in the network input."""
        return ResizeGeometry.fit(self.resize, camera_width, camera_height, self.network_width, self.network_height)

    def to_json(self) -> str:
        """One JSON object, keys sorted, so that equal specs are equal text."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str, origin: str = "model") -> ModelSpec:
        """Read what `to_json` wrote.

        Args:
            text: the JSON value.
            origin: the file it came from, for the message.

        Raises:
            NotCanonicalError: not JSON, a key is missing or unknown, or a value is impossible.
        """
        remedy = "run `seg_perception prepare` on the source model again, with this version of the package"
        try:
            values = json.loads(text)
            if not isinstance(values, dict):
                raise ValueError(f"expected a JSON object, got {type(values).__name__}")
            # First of all: another version may have other keys.
            version = values.get("contract_version")
            if version != CONTRACT_VERSION:
                shown = _shown(version)
                raise ValueError(f"this package speaks contract version {CONTRACT_VERSION}, the model says {shown}")
            return cls(**_checked(values))
        except (ValueError, TypeError, RecursionError, ConfigurationError, NotCanonicalError) as error:
            raise NotCanonicalError(
                f"{origin}: its canonical-model metadata cannot be used: {printable(error, 500)}; {remedy}"
            ) from error

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], origin: str) -> ModelSpec:
        """Read the spec out of a model's metadata.

        Raises:
            NotCanonicalError: the model carries none, so it is a raw export.
        """
        if METADATA_KEY not in metadata:
            raise NotCanonicalError(
                f"{origin}: not a canonical model (no {METADATA_KEY!r} metadata); "
                f"run `seg_perception prepare {origin} -o MODEL.canonical.onnx` and use the result"
            )
        return cls.from_json(metadata[METADATA_KEY], origin)


# What JSON gives for the type of a field; a bool is no number here.
_JSON_TYPES: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "bool": (bool,), "float": (float, int)}


def _checked(values: dict[str, Any]) -> dict[str, Any]:
    """The values with the types of the fields of `ModelSpec`.

    Raises:
        ValueError: a key is missing or unknown, or a value has another type.
    """
    odd = set(values) ^ {field.name for field in fields(ModelSpec)}
    if odd:
        raise ValueError(f"keys missing or unknown: {printable(', '.join(sorted(odd)))}")
    for field in fields(ModelSpec):
        expected = _JSON_TYPES.get(str(field.type))
        value = values[field.name]
        if expected and (not isinstance(value, expected) or (isinstance(value, bool) and bool not in expected)):
            raise ValueError(f"{field.name}: expected {field.type}, got {_shown(value)}")
    if not isinstance(values["resize"], dict):
        raise ValueError(f"resize: expected an object, got {_shown(values['resize'])}")
    return {
        **values,
        "class_names": _items(values, "class_names", str),
        "things": _items(values, "things", bool),
        "resize": ResizeSpec(**values["resize"]),
    }


def _items(values: dict[str, Any], key: str, kind: type) -> tuple[Any, ...]:
    if not isinstance(values[key], list) or not all(isinstance(item, kind) for item in values[key]):
        raise ValueError(f"{key}: expected a list of {kind.__name__}, got {_shown(values[key])}")
    return tuple(values[key])


def _shown(value: object) -> str:
    """A value for a message; Python refuses to write whole numbers of thousands of digits."""
    try:
        return printable(repr(value), 60)
    except (ValueError, RecursionError):
        return f"a value of type {type(value).__name__} that is too large to show"
