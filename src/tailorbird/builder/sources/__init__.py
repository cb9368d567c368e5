"""Sources: ONNX files of strangers and PyTorch programs, read and told apart."""
