"""Layers of two engines as runtimes report them: one fuses, the other quantises and adds layers of its own."""

from tailorbird.domain.layers import Layer, LayerBook, LayerTable

CHOSEN = "openvino int8 static t2 nncf bf16-rest kept9"
RUNNER_UP = "onnxruntime fp32 static t2"


def book(blocks: int = 3, evil: str = "") -> LayerBook:
    """A stem, blocks of two layers each, and a head; the second engine runs every node on its own."""
    fused = [
        Layer(f"{evil}conv{n}", "Convolution", "int8", 1.0 + n % 7, (f"{evil}conv{n}", f"relu{n}"))
        for n in range(blocks)
    ]
    single = [
        layer
        for n in range(blocks)
        for layer in (
            Layer(f"c{n}", "Conv", "fp32", 2.0 + n % 5, (f"{evil}conv{n}",)),
            Layer(f"r{n}", "Relu", "fp32", 0.5, (f"relu{n}",)),
        )
    ]
    head = Layer("head", f"{evil}FullyConnected", "bf16", 0.25, ("head",))
    move = Layer("reorder", "Reorder", "uint8", 0.125)
    return LayerBook(
        (
            LayerTable(CHOSEN, "opt", 20, 5.0, (move, *fused, head)),
            LayerTable(RUNNER_UP, "opt", 20, 9.5, (*single, Layer("gemm", "Gemm", "fp32", 0.75, ("head",)))),
        )
    )
