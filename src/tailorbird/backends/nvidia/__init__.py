"""What TensorRT and TensorRT-RTX share: one API, of which :mod:`.flavour` tells the differences as data."""
