"""Runs an open session of ONNX Runtime: what its backend and the toolchain's exact emulation share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.contract import INPUT_NAME, ModelSpec
from seg_perception.core.errors import is_out_of_memory

from ..base import run_error
from .runner import Arrays, ModelOutputs, run_in_parts

if TYPE_CHECKING:
    import onnxruntime


class SessionRunner:
    """A canonical model in an open session of ONNX Runtime, as a `Runner`."""

    def __init__(self, session: onnxruntime.InferenceSession, spec: ModelSpec, identity: dict[str, str]) -> None:
        self._session: onnxruntime.InferenceSession | None = session
        self.spec = spec
        self.identity = identity

    def run(self, images: NDArray[np.uint8]) -> ModelOutputs:
        """Run the model; see `Runner.run`."""
        arrays = run_in_parts(images, self.spec.batch or len(images), self._infer)
        return ModelOutputs.from_arrays(self.spec, arrays)

    def close(self) -> None:
        """Release the session."""
        self._session = None

    def _infer(self, images: NDArray[np.uint8]) -> Arrays:
        if self._session is None:
            raise RuntimeError("the model was closed")
        try:
            arrays: Arrays = self._session.run(list(self.spec.output_names), {INPUT_NAME: images})
        # ONNX Runtime's errors have no common base class of their own.
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise run_error("ONNX Runtime", error) from error
        return arrays
