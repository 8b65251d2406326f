"""What operators mean for precision."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import TensorProto


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# The result is made of elements of the inputs, so it is exact in whatever type the inputs are.
MOVES = _names(
    "Compress Concat DepthToSpace Expand Flatten Gather GatherElements GatherND Identity Pad Reshape ReverseSequence "
    "ScatterElements ScatterND Slice SpaceToDepth Split Squeeze Tile Transpose Trilu Unsqueeze Where"
)
# Of these, the ones whose elements come from more than the first input.
JOINS = _names("Concat Pad ScatterElements ScatterND Where")
# The result is the same for a float16 and for the equal float32: nothing is added or multiplied.
EXACT = MOVES | _names(
    "Abs ArgMax ArgMin GlobalMaxPool IsInf IsNaN Max MaxPool Min Neg ReduceMax ReduceMin Relu Shape Sign Size"
)
# Element by element: cheap in any type, and fused with its neighbours.
ELEMENTWISE = _names(
    "Abs Acos Acosh Add And Asin Asinh Atan Atanh Ceil Celu Clip Cos Cosh Div Elu Equal Erf Exp Floor Gelu Greater "
    "GreaterOrEqual HardSigmoid HardSwish IsInf IsNaN LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not "
    "Or PRelu Pow Reciprocal Relu Round Selu Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Sub Sum Tan Tanh "
    "ThresholdedRelu Where Xor"
)
REDUCTIONS = _names(
    "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare"
)
# What lies between the last product of a network and its boxes and scores.
CHEAP = MOVES | EXACT | ELEMENTWISE | REDUCTIONS | _names("Cast CumSum LogSoftmax OneHot Range Softmax TopK")
# Squares, exponentials and sums of many terms: float16 runs out of range or digits.
DELICATE = _names(
    "Cos CumSum Exp GridSample GroupNormalization InstanceNormalization LayerNormalization Log LogSoftmax "
    "LpNormalization MeanVarianceNormalization Pow RMSNormalization Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum "
    "ReduceLogSumExp ReduceProd ReduceSumSquare RoiAlign Sin Softmax Softplus Sqrt Tan"
)
# These are harmless over few elements, such as a window or the channels of a small group.
SUMS = _names("GlobalAveragePool ReduceMean ReduceSum")
PRODUCTS = _names("Conv ConvTranspose Einsum Gemm MatMul")
COMPARISONS = _names("Equal Greater GreaterOrEqual Less LessOrEqual")
# Inputs that are positions, by place.
POSITIONS = {"GridSample": (1,), "RoiAlign": (1,), "NonMaxSuppression": (0, 1), "Resize": (1, 2, 3), "Upsample": (1,)}
# They turn numbers into indices and decisions.
ROUNDING = _names("Ceil Floor Round TopK")
# Here the type is free, and a decision is not meant.
NEUTRAL = _names("DynamicQuantizeLinear IsInf IsNaN QuantizeLinear Shape Size")
# Their input may be of any type, whatever their output is.
TAKES_ANY = _names("Cast Shape Size")
# Their output is of a type that an attribute names.
TYPED_BY_ATTRIBUTE = _names(
    "Bernoulli BlackmanWindow EyeLike HammingWindow HannWindow Multinomial RandomNormal RandomNormalLike RandomUniform "
    "RandomUniformLike"
)


def half_slots(node: onnx.NodeProto, opset: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The element types that an operator's float inputs and outputs have when as many as can be are float16.

    Args:
        node: of ONNX's own domain.
        opset: of the model.

    Returns:
        For inputs and outputs by place, FLOAT16 or FLOAT.
    """
    schema = onnx.defs.get_schema(node.op_type, opset)
    allowed = {item.type_param_str: item.allowed_type_strs for item in schema.type_constraints}

    def elements(parameters: Sequence[onnx.defs.OpSchema.FormalParameter], count: int) -> tuple[int, ...]:
        # The last parameter of some operators stands for any number of them.
        kinds = [parameters[min(place, len(parameters) - 1)].type_str for place in range(count)]
        halves = ["tensor(float16)" in allowed.get(kind, [kind]) for kind in kinds]
        return tuple(TensorProto.FLOAT16 if half else TensorProto.FLOAT for half in halves)

    inputs = elements(schema.inputs, len(node.input))
    if node.op_type == "Resize":  # its region and scales are positions
        inputs = (inputs[0], *(TensorProto.FLOAT for _ in inputs[1:]))
    return inputs, elements(schema.outputs, len(node.output))
