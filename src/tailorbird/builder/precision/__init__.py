"""Precision: an FP32 graph brought to FP16 or BF16 by casts, except where its own values say that this would hurt."""
