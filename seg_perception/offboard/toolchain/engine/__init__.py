"""Building engines: a model in the precision that was asked for, TensorRT's builder, and the manifest of the result."""
