"""The CPU: OpenVINO and ONNX Runtime, with letterbox, select and paint in NumPy and OpenCV."""
