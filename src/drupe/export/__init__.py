"""A checkpoint to ONNX for ONNX Runtime GenAI."""
