"""PyTorch programs compiled for this machine: AOTInductor, `torch.compile`, and kernels of our own for CUDA."""
