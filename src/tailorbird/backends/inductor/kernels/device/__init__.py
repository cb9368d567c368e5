"""The kernels themselves, in Triton. Imported on first use: Triton is there where PyTorch was built for CUDA."""
