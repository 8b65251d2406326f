"""From a float32 canonical model to an INT8 one that keeps its accuracy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import onnx

from seg_perception.core.contract import METADATA_KEY
from seg_perception.core.errors import ConfigurationError, ModelError, NotCanonicalError
from seg_perception.offboard.evaluation.coco import CocoSet
from seg_perception.offboard.metrics.average_precision import require_pycocotools

from ..export import contradictions_named, metadata_of, spec_of
from ..graph import copy_of, lift_constants, name_nodes
from ..precision.cost import layer_costs
from ..precision.emulate import emulated
from ..precision.half import to_half
from .choose import distortion_by_layer, distortion_by_method, few_frames, left_in_int8, scales_of_weights
from .frames import FEWEST, CalibrationSet, network_input
from .gate import Budget, Gate, GateVerdict, ReferenceMeasurement
from .insert import Scales, insert, observed_tensors
from .layers import Layer, Network, is_own
from .progress import Progress, silent
from .ranges import METHODS, calibrate
from .report import REPORT_KEY, Kept, QuantizationReport, Step

# Share of the multiply-accumulates that more is kept in FP16 from one measurement to the next.
_STEP = 0.02
# Sets of layers that are tried with more layers in INT8 again, once a set fits.
_MOST_RETURNS = 8


@dataclass(frozen=True, slots=True)
class QuantizeOptions:
    """What the user decides.

    Attributes:
        budget: what quantization may cost.
        method: of `ranges.METHODS`, or empty to measure which is best.
        int8_share: with labels, more layers are kept in FP16 than the budget asks for until the instances agree,
            as long as this share of the multiply-accumulates stays in INT8.
        force: whether a model over the budget is written all the same.
    """

    budget: Budget = field(default_factory=Budget)
    method: str = ""
    int8_share: float = 0.8
    force: bool = False

    def __post_init__(self) -> None:
        if self.method and self.method not in METHODS:
            raise ConfigurationError(f"--method: expected one of {', '.join(METHODS)}, got {self.method!r}")
        if not 0 <= self.int8_share <= 1:
            raise ConfigurationError(f"--int8-share: expected 0 to 1, got {self.int8_share:g}")


@dataclass(frozen=True, slots=True)
class Quantized:
    """The result.

    Attributes:
        model: canonical, float16 with Q/DQ pairs; the report is in its metadata.
        report: what was done and what it cost.
    """

    model: onnx.ModelProto
    report: QuantizationReport


def quantize(
    model: onnx.ModelProto,
    frames: CalibrationSet,
    options: QuantizeOptions | None = None,
    report: Callable[[str], None] = lambda line: None,
    progress: Progress = silent,
    origin: str = "model",
) -> Quantized:
    """Quantize, measure, and keep more layers in FP16 until the loss is within the budget.

    Args:
        model: float32 canonical; stays as it is.
        frames: scales, method and layers come from its calibration frames, the verdict from the held-back ones.
        options: defaults for all.
        report: called with a line of text for each thing found out.
        progress: shows how far long steps are.
        origin: the model's file, for messages.

    Raises:
        NotCanonicalError: the model is a raw export.
        ModelError: it is quantized or in float16 already, nothing in it can be quantized, or the loss stays over the
            budget.
        ConfigurationError: the labels are of other classes.
    """
    options = options or QuantizeOptions()
    network = _network(model, origin)
    work = _Work(network, frames, options, report, progress, origin)
    steps = work.run()
    return _finished(work, steps)


def check_source(model: onnx.ModelProto, labels: CocoSet | None, origin: str = "model") -> None:
    """See that a model can be quantized and measured, before the frames are read.

    Raises:
        NotCanonicalError, ModelError: see `quantize`.
        ConfigurationError: the labels are of other classes.
        BackendUnavailable: labels need pycocotools, which is not installed.
    """
    _network(model, origin)
    if labels is not None:
        require_pycocotools()
        names = spec_of(model, origin).class_names
        labels.matching(names).categories(names)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One set of quantized layers, and what the gate says of it."""

    layers: tuple[Layer, ...]
    model: onnx.ModelProto
    step: Step
    verdict: GateVerdict


class _Work:
    """The run of one quantization."""

    def __init__(
        self,
        network: Network,
        frames: CalibrationSet,
        options: QuantizeOptions,
        report: Callable[[str], None],
        progress: Progress,
        origin: str,
    ) -> None:
        self.network, self.frames, self.options, self.origin = network, frames, options, origin
        self.report, self.progress = report, progress
        costs = layer_costs(network.model)
        total = max(sum(cost.macs for cost in costs), 1)
        self.shares = {cost.name: cost.macs / total for cost in costs}
        self.layers = tuple(layer for layer in network.layers if not layer.kept)
        self.method = ""

    def run(self) -> list[_Attempt]:
        """Everything up to the attempts, in order."""
        self.report(frames_summary(self.frames))
        if self.frames.labels is not None and not spec_of(self.network.model, self.origin).max_instances:
            self.report("note: the labels are of instances, and this model has a class map alone: they are not used")
        scales = self._scales()
        measurement = ReferenceMeasurement(self.network.model, self.frames, few_frames(self.frames))
        self.method = self.options.method or self._best_method(scales, measurement)
        gate = Gate(self.network.model, self.frames, self.options.budget, self.progress)
        attempts = [self._attempt(gate, self.layers, scales, f"all layers that may be, {self.method}")]
        layers = self.layers
        dense = tuple(layer for layer in layers if not layer.depthwise)
        if not self._done(attempts) and 0 < len(dense) < len(layers):
            # Little work, and a channel of small values is lost in steps that suit the largest one.
            kept = f"kept in FP16: {len(layers) - len(dense)} depthwise convolutions"
            attempts.append(self._attempt(gate, dense, scales, kept))
            layers = min(attempts, key=_badness).layers
        if self._done(attempts):
            return attempts
        sensitivity = distortion_by_layer(self.network, layers, scales[self.method], measurement, self.progress)
        self._tell_sensitivity(sensitivity)
        for left in left_in_int8(layers, sensitivity, self.shares, _STEP):
            if any(not each.verdict.over for each in attempts) and self._share(left) < self.options.int8_share:
                break
            gone = [layer.name for layer in attempts[-1].layers if layer not in left]
            attempts.append(self._attempt(gate, left, scales, f"kept in FP16: {', '.join(gone)}"))
            if self._done(attempts):
                # Of several sets one fits few frames by chance, so that these do not choose among more of them.
                few = bool(attempts[-1].verdict.precision.caution)
                return attempts if few else attempts + self._returned(gate, attempts, scales)
        return attempts

    def _returned(self, gate: Gate, attempts: Sequence[_Attempt], scales: Mapping[str, Scales]) -> list[_Attempt]:
        """Return layers to INT8 that were kept in FP16 on the way to a set that fits and that it does not need.

        Layers are ranked one by one, on few frames; what they do together the gate alone sees.

        Returns:
            More attempts: without all that was kept before the last step, then without halves of it, and so on.
        """
        sets = [{layer.name for layer in each.layers} for each in attempts]
        # What each step kept, but for the last one, without which nothing has fitted.
        steps = [before - after for before, after in pairwise(sets[:-1])]
        waiting, best, tried = [steps] if steps else [], sets[-1], list[_Attempt]()
        while waiting and len(tried) < _MOST_RETURNS:
            part = waiting.pop(0)
            again = set().union(*part)
            layers = tuple(layer for layer in self.layers if layer.name in best | again)
            tried.append(self._attempt(gate, layers, scales, f"in INT8 again: {', '.join(sorted(again))}"))
            if self._done(tried):
                best |= again
            elif len(part) > 1:
                half = len(part) // 2
                waiting += [part[half:], part[:half]]
        return tried

    def _done(self, attempts: Sequence[_Attempt]) -> bool:
        verdict = attempts[-1].verdict
        return not verdict.over and not verdict.differs

    def _scales(self) -> dict[str, Scales]:
        tensors = observed_tensors(self.network, self.layers)
        weights = scales_of_weights(self.network, self.layers)
        # A graph that cannot be written is found here, not after the minutes that calibration takes.
        to_half(insert(self.network, self.layers, Scales(dict.fromkeys(tensors, 1.0), weights)))
        self.report(
            f"calibrating {len(tensors)} tensors of {len(self.layers)} layers "
            f"({100 * self._share(self.layers):.1f} % of the multiply-accumulates)"
        )
        spec = spec_of(self.network.model, self.origin)
        chosen = self.frames.calibration
        found = self.progress(self.frames.frames(chosen), "calibration", len(chosen))
        # A network of a fixed batch takes the frame as often as that.
        inputs = (np.repeat(network_input(frame, spec), spec.batch or 1, axis=0) for _, frame in found)
        methods = (self.options.method,) if self.options.method else METHODS
        limits = calibrate(self.network, tensors, inputs, methods)
        return {method: Scales(each, weights) for method, each in limits.items()}

    def _best_method(self, scales: Mapping[str, Scales], measurement: ReferenceMeasurement) -> str:
        distortion = distortion_by_method(self.network, self.layers, scales, measurement, self.progress)
        self.report("distortion by calibration method: " + ", ".join(f"{k} {v:.4f}" for k, v in distortion.items()))
        return min(distortion, key=lambda method: distortion[method])

    def _attempt(self, gate: Gate, layers: tuple[Layer, ...], scales: Mapping[str, Scales], action: str) -> _Attempt:
        model, _ = to_half(insert(self.network, layers, scales[self.method]))
        verdict = gate.measure(emulated(model)[0], "gate")
        step = Step(action, self._share(layers), verdict.precision, not verdict.over)
        self.report(
            f"INT8 {100 * step.int8_share:.1f} %, {action}\n  {'fits' if step.fits else 'over'}: {step.precision}"
        )
        return _Attempt(layers, model, step, verdict)

    def _share(self, layers: Sequence[Layer]) -> float:
        return sum(self.shares[layer.name] for layer in layers)

    def _tell_sensitivity(self, sensitivity: Mapping[str, float]) -> None:
        worst = sorted(sensitivity, key=lambda name: -sensitivity[name])[:10]
        self.report("most sensitive layers, quantized alone: " + ", ".join(f"{k} {sensitivity[k]:.4f}" for k in worst))


def frames_summary(frames: CalibrationSet) -> str:
    """Return what the frames are, what could not be read, and whether they are enough; lines of text."""
    held = [each for each in frames.held_back if each.image_id is not None]
    lines = [
        f"{len(frames.images)} frames: {len(frames.calibration)} for calibration, {len(frames.held_back)} held back "
        f"for the gate ({len(held)} with labels)"
    ]
    if frames.duplicates:
        lines.append(f"{frames.duplicates} frames are the same as others and were left out")
    if frames.failures:
        lines.append(f"{len(frames.failures)} could not be read:")
        lines += [f"  skipped: {failure}" for failure in frames.failures]
    lines += [f"warning: {line}" for line in frames.warnings]
    if frames.labels is not None and frames.labels.missing:
        absent = frames.labels.missing
        lines.append(f"{len(absent)} labelled images are not there, such as {absent[0]}")
    if frames.labels is not None:
        lines += [f"labels: {line}" for line in frames.labels.left_out()]
    if len(frames.images) < FEWEST:
        lines.append(
            f"warning: only {len(frames.images)} frames; give {FEWEST} or more (500 are better) from the cameras "
            "that the model will see, or the scales may fit nothing else"
        )
    return "\n".join(lines)


def _finished(work: _Work, attempts: Sequence[_Attempt]) -> Quantized:
    """Choose among the attempts that are within the budget: of those that agree the largest, else the last."""
    fitting = [each for each in attempts if not each.verdict.over]
    if not fitting and not work.options.force:
        last = attempts[-1]
        raise ModelError(
            f"{work.origin}: the quantized model loses too much even with {len(work.layers) - len(last.layers)} of "
            f"{len(work.layers)} layers in float16: {'; '.join(last.verdict.over)}; calibrate with more frames of what "
            "the cameras see, allow more with --max-loss, --min-iou, --min-class-iou or --max-faults, use float16, "
            "or --force"
        )
    agreeing = [each for each in fitting if not each.verdict.differs]
    chosen = min(attempts, key=_badness)
    if fitting:
        chosen = max(agreeing, key=lambda each: each.step.int8_share) if agreeing else fitting[-1]
    steps = (*(each.step for each in attempts if each is not chosen), chosen.step)
    quantized = {layer.name for layer in chosen.layers}
    reasons = {layer.name: layer.kept or "sensitive" for layer in work.network.layers if layer.name not in quantized}
    kept = [
        Kept(layer.name, layer.operator, round(work.shares.get(layer.name, 0.0), 6), reasons[layer.name])
        for layer in work.network.layers
        if layer.name in reasons
    ]
    done = QuantizationReport(
        method=work.method,
        calibration_frames=len(work.frames.calibration),
        calibration_sha256=work.frames.sha256,
        failures=len(work.frames.failures),
        int8_share=chosen.step.int8_share,
        kept=tuple(kept),
        budget=work.options.budget.to_dict(),
        steps=steps,
        forced=not fitting,
    )
    chosen.model.metadata_props.add(key=REPORT_KEY, value=done.to_json())
    return Quantized(chosen.model, done)


def _badness(attempt: _Attempt) -> float:
    precision = attempt.step.precision
    lost = precision.fault_share - (precision.mask_iou or 0.0) if precision.mask_loss is None else precision.mask_loss
    return lost - (precision.class_map_share or 0.0) - (precision.class_map_iou or 0.0)


def _network(model: onnx.ModelProto, origin: str) -> Network:
    """A copy of the model, ready to be looked at.

    Raises:
        NotCanonicalError, ModelError: see `quantize`.
    """
    if METADATA_KEY not in metadata_of(model):
        raise NotCanonicalError(
            f"{origin}: a raw export; run `seg_perception prepare {origin} -o MODEL.canonical.onnx` first and quantize "
            "the result"
        )
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in model.graph.node):
        raise ModelError(f"{origin}: quantized already; quantize the float32 model that it was made from")
    copy = copy_of(model)
    with contradictions_named(origin):
        name_nodes(copy.graph)
        lift_constants(copy.graph, keep=is_own)
        network = Network(copy)
        network.layers  # noqa: B018  looked for here, where the model is to blame
    if any(network.weights[layer.weight].data_type != onnx.TensorProto.FLOAT for layer in network.layers):
        raise ModelError(
            f"{origin}: its network is in float16; quantize the float32 canonical model (what is left in float becomes "
            "float16 by itself)"
        )
    if all(layer.kept for layer in network.layers):
        raise ModelError(
            f"{origin}: no layer can be quantized: it has {len(network.layers)} convolutions and products with "
            "constant weights, and INT8 suits none of them (the last before the head, or too few channels); use float16"
        )
    return network
