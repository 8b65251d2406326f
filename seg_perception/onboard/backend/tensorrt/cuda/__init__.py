"""What runs on a CUDA GPU around the engine: letterbox, select and paint as kernels, captured into graphs."""
