"""Networks that give the same outputs for every image: what is behind them can be tested with any numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from seg_perception.core.contract import OPSET
from seg_perception.offboard.toolchain.graph import GraphBuilder, Value


class FrozenNetwork:
    """A graph under construction.

    Args:
        height, width: of the network input.
        batch: fixed, or None for a dynamic batch axis.
    """

    def __init__(self, height: int, width: int, batch: int | None = 1) -> None:
        self.first: Any = "batch" if batch is None else batch
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [self.first, 3, height, width])
        self._proto = helper.make_graph([], "frozen", [image], [])
        self.graph = GraphBuilder(self._proto, "frozen")
        # 0 for each image, but not for those who fold constants.
        self._nothing = self.graph.value("image").sum(1, 2, 3) * 0.0

    def tensor(self, array: NDArray[np.float32]) -> Value:
        """An array `[N, ...]` as the network's result for every image: `[B, N, ...]`."""
        return self.graph.constant(array[None]) + self._nothing.reshape(-1, *[1] * array.ndim)

    def model(self, outputs: Mapping[str, Value], dtypes: Mapping[str, Any] | None = None) -> onnx.ModelProto:
        """The checked model with these outputs, whose shapes are inferred; float32 unless `dtypes` says otherwise."""
        for name, value in outputs.items():
            self.graph.publish(value, name, (dtypes or {}).get(name, np.float32), ())
            self._proto.output[-1].type.tensor_type.ClearField("shape")
        model = helper.make_model(self._proto, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
        model = onnx.shape_inference.infer_shapes(model)
        onnx.checker.check_model(model, full_check=True)
        return model
