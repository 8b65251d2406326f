"""TensorRT and TensorRT-RTX: engines, and the kernels around them in `cuda`."""
