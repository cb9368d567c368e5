"""The Open Inference Protocol over gRPC, beside the HTTP service and over the same data plane."""
