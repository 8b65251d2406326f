"""Model families: one module each, found by being here.

A family's module has a function `family() -> Family`. Adding a family is adding a module; nothing else changes.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol

from numpy.typing import NDArray

from seg_perception.core.errors import ConfigurationError, UnknownFamilyError
from seg_perception.core.geometry import ResizeSpec

from ..evidence import neutral_outputs
from ..export import Export, Port
from ..formulas import GraphBuilder
from ..head import Head, HeadOptions


@dataclass(frozen=True, slots=True)
class PixelSpec:
    """What the network wants to see: `(value - mean) / std` of pixel values 0 to 255, per channel.

    Attributes:
        mean, std: per channel in the network's own order.
        bgr: whether that order is blue, green, red.
    """

    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (255.0, 255.0, 255.0)
    bgr: bool = False

    def __str__(self) -> str:
        order = "BGR" if self.bgr else "RGB"
        if not any(self.mean) and len(set(self.std)) == 1:
            return f"{order} / {self.std[0]:g}" if self.std[0] != 1 else f"{order} 0 to 255"
        mean, std = (" ".join(f"{value:g}" for value in values) for values in (self.mean, self.std))
        return f"{order} 0 to 255, less {mean}, divided by {std}"


# What networks want to see whose backbone was trained on ImageNet.
IMAGENET = PixelSpec((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))

# Pixels along a side of a cell of the masks of a model that has them in the size of the image only.
MASK_CELL = 4


@dataclass(frozen=True, slots=True)
class Match:
    """What a family saw in a model that it recognised.

    Attributes:
        image: the input, `[B, 3, H, W]`.
        outputs: by the family's own name for what they are.
        class_count: number of classes; 0 where the model does not tell, so that the names that are given decide.
        pixels: what the network wants to see.
        resize: how a camera image becomes the network input.
        summary: for people, such as `80 classes, 8400 positions`.
        spare_classes: how many of the last classes may go without a name; those that do are not looked at.
        things: for each class, whether it comes as instances; empty until the class names are known.
        reading: what is taken for granted of the outputs, for people, by `scores`, `boxes`, `masks`.
        evidence: what in the model speaks for this reading beyond the shapes.
        against: what in the model speaks against it.
        probe: adds the evidence of the outputs for a grey image, by name; None where that would tell nothing.
        box_shares: whether boxes are shares of the network's width and height, not pixels.
    """

    image: Port
    outputs: Mapping[str, Port]
    class_count: int
    pixels: PixelSpec
    resize: ResizeSpec
    summary: str
    spare_classes: int = 0
    things: tuple[bool, ...] = ()
    reading: Mapping[str, str] = field(default_factory=dict)
    evidence: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    probe: Callable[[Match, Mapping[str, NDArray[Any]]], Match] | None = None
    box_shares: bool = False


class Family(Protocol):
    """How to recognise a kind of model and how to write its head."""

    @property
    def name(self) -> str:
        """Short and stable; what `--family` takes."""

    @property
    def expects(self) -> str:
        """The outputs it looks for, for the message of `UnknownFamilyError`."""

    def recognise(self, export: Export) -> Match | None:
        """Return what the family sees in the model, or None if it is not one of the family's.

        Looks at the number, shapes and element types of inputs and outputs; at names only where those leave a doubt.
        """

    def write_head(self, graph: GraphBuilder, match: Match, options: HeadOptions) -> Head:
        """Write everything behind the network, for any batch size.

        Args:
            graph: of the model in `contract.OPSET`, whose float outputs are float32.
            match: what `recognise` returned, with `things` and with as many classes as have names;
                `graph.value(port.name)` are its outputs.
            options: the user's.
        """


def known_families() -> dict[str, Family]:
    """Every family by its name, in alphabetical order."""
    modules = [import_module(f"{__name__}.{entry.name}") for entry in pkgutil.iter_modules(__path__)]
    families: list[Family] = [module.family() for module in modules]
    return {family.name: family for family in sorted(families, key=lambda family: family.name)}


def recognise(export: Export, forced: str = "") -> tuple[Family, Match]:
    """Find the family of a model.

    Args:
        export: the model.
        forced: the only family to try, or empty for all.

    Raises:
        ConfigurationError: there is no family called `forced`.
        UnknownFamilyError: no family recognises the model, or several do.
    """
    families = known_families()
    if forced and forced not in families:
        raise ConfigurationError(f"--family: expected one of {', '.join(families)}, got {forced!r}")
    tried = [families[forced]] if forced else list(families.values())
    matches = [(family, match) for family in tried if (match := family.recognise(export)) is not None]
    if len(matches) == 1 and (forced or not matches[0][1].against):
        return matches[0][0], _probed(export, matches)[0][1]
    if matches:
        return _decided(export, matches)
    expected = "\n".join(f"  {family.name}: {family.expects}" for family in tried)
    problem = "not a model of this family" if forced else "no known family recognises this model"
    # What to do comes first: long messages are cut at their end.
    raise UnknownFamilyError(
        f"{export.origin}: {problem}; {_remedy(export)}\n{_seen(export)}\n"
        f"expected: one input of images [B, 3, H, W] or [B, H, W, 3], and by\n{expected}"
    )


Matches = list[tuple[Family, Match]]


def _decided(export: Export, matches: Matches) -> tuple[Family, Match]:
    """The only reading that the evidence leaves, or that alone has evidence.

    Raises:
        UnknownFamilyError: none is left, or several.
    """
    fitting: Matches = []
    for probed in (False, True):
        matches = _probed(export, matches) if probed else matches
        fitting = [pair for pair in matches if not pair[1].against]
        certain = [pair for pair in fitting if pair[1].evidence]
        if len(certain) == 1 or (len(fitting) == 1 and not certain):
            family, match = (certain or fitting)[0]
            return family, match if probed else _probed(export, [(family, match)])[0][1]
    names = ", ".join(family.name for family, _ in fitting or matches)
    problem = (
        "several families recognise this model"
        if fitting
        else "something in this model speaks against each of its readings"
    )
    readings = "\n".join(f"  {family.name}: {_reading(match)}" for family, match in matches)
    raise UnknownFamilyError(
        f"{export.origin}: {problem} ({names}); choose one with --family"
        f"{'' if fitting else f', or {_remedy(export)}'}\n{_seen(export)}\nreadings\n{readings}"
    )


def _probed(export: Export, matches: Matches) -> Matches:
    """The matches with the evidence of a run on a grey image, where they can use it."""
    curious = [match for _, match in matches if match.probe is not None]
    if not curious:
        return matches
    image, pixels = curious[0].image, curious[0].pixels
    outputs = neutral_outputs(export, image, pixels.mean, pixels.std)
    if not outputs:
        return matches
    return [(family, match.probe(match, outputs) if match.probe else match) for family, match in matches]


def _reading(match: Match) -> str:
    words = [match.summary, *(f"{key}: {text}" for key, text in match.reading.items()), f"pixels: {match.pixels}"]
    words += [f"for it: {text}" for text in match.evidence] + [f"against it: {text}" for text in match.against]
    return "; ".join(words)


def _remedy(export: Export) -> str:
    if len(export.inputs) != 1 or export.inputs[0].rank not in (-1, 3, 4):
        return (
            "a network takes one input of images, and this one does not: it may be what another program runs before or "
            "after the network (such as suppression or drawing of masks); give the file of the network itself"
        )
    shape = export.inputs[0].shape or ()
    if len(shape) == 4 and None not in (shape[1], shape[3]) and 3 not in (shape[1], shape[3]):
        return "its images have no three channels (red, green, blue), which are what a camera gives"
    if len(export.outputs) == 1 and export.outputs[0].rank == 3:
        return (
            "a single output of three axes is that of a detection model, which has boxes and no masks: export the "
            "segmentation model (`yolo11n-seg`, not `yolo11n`)"
        )
    if any(node.op_type == "NonMaxSuppression" for node in export.model.graph.node):
        return (
            "the model suppresses duplicates itself (NonMaxSuppression), with shapes that depend on the image; "
            "export it without that (Ultralytics: leave out nms=True), the canonical model does it instead"
        )
    return "export it in a form that a family reads, or add a family to seg_perception/offboard/toolchain/families"


def image_input(export: Export) -> Port | None:
    """The only input, if it is float images `[B, 3, H, W]`."""
    if len(export.inputs) != 1 or not is_float(export.inputs[0]):
        return None
    shape = export.inputs[0].shape
    return export.inputs[0] if shape is not None and len(shape) == 4 and shape[1] == 3 else None


def sizes_of(port: Port) -> tuple[int, ...]:
    """The sizes behind the batch axis, 0 for an unknown one."""
    return tuple(0 if size is None else size for size in (port.shape or ())[1:])


def by_rank(export: Export) -> dict[int, Port]:
    """The float outputs by their number of axes, if there are no others and no two of one rank; else nothing."""
    outputs = {port.rank: port for port in export.outputs if is_float(port)}
    return outputs if len(outputs) == len(export.outputs) else {}


def logits_behind(export: Export, port: Port) -> Port | None:
    """The logits, before any upsampling, of masks `[B, C, h, w]` that a sigmoid and an upsampling made; None if not."""
    coarse = export.before_upsampling(port)
    node = export.graph.producer(coarse.name)
    while node is not None and node.op_type in ("Identity", "Cast"):
        node = export.graph.producer(node.input[0])
    logits = export.port(node.input[0]) if node is not None and node.op_type == "Sigmoid" else None
    return None if logits is None else export.before_upsampling(logits)


def is_float(port: Port) -> bool:
    """Return whether it is float32 or float16."""
    return port.element in (1, 10)  # TensorProto.FLOAT and FLOAT16


def _seen(export: Export) -> str:
    lines = [f"  input {port}" for port in export.inputs] + [f"  output {port}" for port in export.outputs]
    return "\n".join(("seen in the model", *lines))
