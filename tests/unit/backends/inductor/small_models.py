"""Small models of the families that the passes are for, as Hugging Face and PyTorch make them."""

import torch

Examples = dict[str, torch.Tensor]


def bert() -> tuple[torch.nn.Module, Examples]:
    """Two layers as PyTorch's own modules make them, with the parts that Hugging Face's BERT has: see `encoder`."""
    return Encoder().eval(), {"ids": torch.randint(0, 50, (2, 16)), "mask": mask(2, 16)}


def mask(batch: int, length: int) -> torch.Tensor:
    whole = torch.ones(batch, length, dtype=torch.int64)
    whole[-1, length // 2 :] = 0
    return whole


class Attention(torch.nn.Module):
    """Three products, heads, and a mask of one row for each query."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (torch.nn.Linear(64, 64) for _ in range(4))

    def forward(self, x: torch.Tensor, counts: torch.Tensor | None) -> torch.Tensor:
        batch, length, width = x.shape
        heads = (part(x).view(batch, length, 4, 16).transpose(1, 2) for part in (self.q, self.k, self.v))
        found = torch.nn.functional.scaled_dot_product_attention(*heads, attn_mask=counts)
        return self.out(found.transpose(1, 2).contiguous().view(batch, length, width))


class Layer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention()
        self.first, self.second = torch.nn.Linear(64, 128), torch.nn.Linear(128, 64)
        self.norms = torch.nn.ModuleList(torch.nn.LayerNorm(64) for _ in range(2))
        self.dropout = torch.nn.Dropout(0.1)

    def forward(self, x: torch.Tensor, counts: torch.Tensor | None) -> torch.Tensor:
        x = self.norms[0](self.dropout(self.attention(x, counts)) + x)
        inner = torch.nn.functional.gelu(self.first(x))
        return self.norms[1](self.dropout(self.second(inner)) + x)


class Encoder(torch.nn.Module):
    """Embeddings, a key mask expanded to every query, post-norm layers, and a pooled first token."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = torch.nn.Embedding(50, 64), torch.nn.Embedding(32, 64)
        self.kinds = torch.nn.Embedding(2, 64)
        self.norm = torch.nn.LayerNorm(64)
        self.layers = torch.nn.ModuleList(Layer() for _ in range(2))
        self.pooler = torch.nn.Linear(64, 64)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        batch, length = ids.shape
        kinds = torch.zeros(batch, length, dtype=torch.int64)
        x = self.norm(self.words(ids) + self.kinds(kinds) + self.places(torch.arange(length))[None])
        rows = torch.arange(batch)[:, None, None, None]
        counts = mask.bool()[rows, torch.arange(length)[None, None, None, :]]
        every = torch.ones((), dtype=torch.bool) & (torch.arange(length)[None, None, :, None] >= 0)
        counts = (every & counts).expand(batch, -1, length, length)
        for layer in self.layers:
            x = layer(x, counts)
        return x, torch.tanh(self.pooler(x[:, 0]))


class PreNorm(torch.nn.Module):
    """As vision transformers have it: the sum goes on beside its norm, and nothing is masked."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = torch.nn.Conv2d(3, 64, 8, 8)
        self.attention = Attention()
        self.norms = torch.nn.ModuleList(torch.nn.LayerNorm(64) for _ in range(3))
        self.first, self.second = torch.nn.Linear(64, 128), torch.nn.Linear(128, 64)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = self.patches(pixels).flatten(2).transpose(1, 2)
        x = x + self.attention(self.norms[0](x), None)
        x = x + self.second(torch.nn.functional.gelu(self.first(self.norms[1](x))))
        return self.norms[2](x)


def vit() -> tuple[torch.nn.Module, Examples]:
    return PreNorm().eval(), {"pixels": torch.randn(2, 3, 32, 32)}


def block(into: int, out: int, stride: int) -> torch.nn.ModuleDict:
    def norm_of(*sizes: int, **window: int) -> torch.nn.Sequential:
        return torch.nn.Sequential(torch.nn.Conv2d(*sizes, bias=False, **window), torch.nn.BatchNorm2d(sizes[1]))

    parts = {
        "one": norm_of(into, 32, 1),
        "two": norm_of(32, 32, 3, stride=stride, padding=1),
        "three": norm_of(32, out, 1),
    }
    if into != out or stride != 1:
        parts["shortcut"] = norm_of(into, out, 1, stride=stride)
    return torch.nn.ModuleDict(parts)


class Residual(torch.nn.Module):
    """Bottlenecks with batch norm, one with a shortcut that strides, sums in place, pooling at both ends."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = torch.nn.Conv2d(3, 32, 7, 2, 3, bias=False), torch.nn.BatchNorm2d(32)
        self.blocks = torch.nn.ModuleList([block(32, 64, 1), block(64, 64, 1), block(64, 128, 2)])
        self.head = torch.nn.Linear(128, 10)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem_norm(self.stem(pixels)))
        x = torch.nn.functional.max_pool2d(x, 3, 2, 1)
        for parts in self.blocks:
            y = parts["three"](torch.relu(parts["two"](torch.relu(parts["one"](x)))))
            y += parts["shortcut"](x) if "shortcut" in parts else x
            x = torch.relu(y)
        return self.head(torch.nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


def resnet() -> tuple[torch.nn.Module, Examples]:
    module = Residual()
    with torch.no_grad():
        for _ in range(3):
            module(torch.randn(4, 3, 32, 32))  # batch norms take their statistics
    return module.eval(), {"pixels": torch.randn(2, 3, 32, 32)}


def exported(module: torch.nn.Module, examples: Examples) -> torch.export.ExportedProgram:
    shapes = {name: {0: torch.export.Dim.AUTO} for name in examples}
    with torch.no_grad():
        return torch.export.export(module, (), examples, dynamic_shapes=shapes, strict=False)
