"""A model under ONNX Runtime with every node computed as the graph states it.

CPU runtimes fuse Q/DQ pairs into INT8 kernels whose arithmetic is not the graph's: products of unsigned and signed
bytes saturate at 16 bits on CPUs without VNNI, and fused kernels round elsewhere. A gate must measure the model, not
the machine, so all optimisations are off: each QuantizeLinear rounds half to even and saturates, each DequantizeLinear
multiplies, and convolutions compute in float32. What is left in float16 ONNX Runtime rounds as it likes; the gate runs
`precision.emulate.emulated`, which rounds all of it.

To rank layers and methods a model may be `fused`: what is float is optimised, which halves the time, and Q/DQ pairs are
still computed one by one. Sums are then in another order, no more.
"""

from __future__ import annotations

import onnx
import onnxruntime

from seg_perception.core.errors import ModelError
from seg_perception.onboard.backend.host.onnxruntime_session import SessionRunner

from ..export import spec_of


def exact_session(model: onnx.ModelProto, threads: int = 0, *, fused: bool = False) -> onnxruntime.InferenceSession:
    """Open a model so that it computes what its graph states.

    Args:
        model: in memory.
        threads: CPU threads; 0 lets ONNX Runtime choose.
        fused: whether float operators may be fused. Not for graphs with Casts that round, which may be left out.

    Raises:
        ModelError: ONNX Runtime cannot run it.
    """
    settings = onnxruntime.SessionOptions()
    levels = onnxruntime.GraphOptimizationLevel
    settings.graph_optimization_level = levels.ORT_ENABLE_ALL if fused else levels.ORT_DISABLE_ALL
    settings.add_session_config_entry("session.disable_quant_qdq", "1")
    settings.intra_op_num_threads = threads
    settings.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    # ONNX Runtime's errors have no common base class of their own.
    except Exception as error:
        raise ModelError(f"the model cannot be run by ONNX Runtime, which measures its accuracy: {error}") from error


class ExactRunner(SessionRunner):
    """A canonical model in memory as a `Runner`."""

    def __init__(self, model: onnx.ModelProto, origin: str = "model", threads: int = 0, *, fused: bool = False) -> None:
        identity = {"backend": f"onnxruntime {onnxruntime.__version__}", "device": "cpu", "precision": "exact"}
        super().__init__(exact_session(model, threads, fused=fused), spec_of(model, origin), identity)
