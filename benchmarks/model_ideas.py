"""Changes of the model and of Muon that the ablations try, and that the package does not have.

Each is a context in which classes are changed; what is built, trained, saved and loaded inside it has the change.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch
from torch import nn

import modeling_minigpt.modeling_minigpt as modeling
from modeling_minigpt import MiniGPTConfig
from modeling_minigpt.attention_base_minigpt import SelfAttention, mark_zero_init
from training import optimizers

NGRAM_ROWS = 8192  # of each table; pairs and triples of tokens share them by hashing
# Of the two tokens before a token and of itself; primes near 2^31, so that sums spread over all rows.
PAIR_FACTORS = (0, 2_147_483_629, 2_147_483_587)
TRIPLE_FACTORS = (2_147_483_563, 2_147_483_549, 2_147_483_543)
TAPS = 4  # tokens that a short convolution sees, its own included
# Amsel et al. 2025 (arXiv 2505.16932), table of degree-5 polynomials for singular values from 0.001.
POLAR_EXPRESS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
)


class NgramEmbedding(nn.Embedding):
    """Token embeddings plus those of the pair and the triple of tokens that end with it (Huang et al. 2025,
    arXiv 2501.16975): a name of three tokens has a vector of its own."""

    def __init__(self, entries: int, width: int, filler: int):
        super().__init__(entries, width)
        self.filler = filler  # before the first token, as in left-padded rows
        self.pairs = nn.Embedding(NGRAM_ROWS, width)
        self.triples = nn.Embedding(NGRAM_ROWS, width)
        self.last: torch.Tensor | None = None  # the two tokens before, while a text is generated token by token

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        continues = input_ids.shape[1] == 1 and self.last is not None and len(self.last) == len(input_ids)
        before = self.last if continues else input_ids.new_full((len(input_ids), 2), self.filler)
        history = torch.cat([before, input_ids], dim=1)  # (B, 2 + T)
        self.last = history[:, -2:]
        windows = history.unfold(1, 3, 1)  # (B, T, 3)
        pairs, triples = (
            (windows * windows.new_tensor(factors)).sum(-1) % NGRAM_ROWS for factors in (PAIR_FACTORS, TRIPLE_FACTORS)
        )
        return super().forward(input_ids) + self.pairs(pairs) + self.triples(triples)


class ShortConvolution(nn.Module):
    """A causal convolution along the text, channel by channel, added to its input (the "Canon" layers of Allen-Zhu
    2025); it starts as nothing."""

    def __init__(self, width: int):
        super().__init__()
        self.taps = nn.Parameter(torch.zeros(TAPS, 1, width))  # no matrix, which Muon would take
        self.last: torch.Tensor | None = None  # inputs before, while a text is generated token by token

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        rows, length, width = states.shape
        continues = length == 1 and self.last is not None and len(self.last) == rows
        before = self.last if continues else states.new_zeros(rows, TAPS - 1, width)
        history = torch.cat([before, states], dim=1)
        self.last = history[:, -(TAPS - 1) :].detach()
        return states + sum(tap * history[:, shift : shift + length] for shift, tap in enumerate(self.taps))


@contextmanager
def ngram_embeddings() -> Iterator[None]:
    """Embed pairs and triples of tokens, too."""
    build = modeling.MiniGPTModel.__init__

    def __init__(self, config: MiniGPTConfig):
        build(self, config)
        self.embed_tokens = NgramEmbedding(config.vocab_size, config.hidden_size, config.pad_token_id)

    with patch.object(modeling.MiniGPTModel, "__init__", __init__):
        yield


@contextmanager
def short_convolutions() -> Iterator[None]:
    """Put a short convolution in front of each attention."""
    build = modeling.MiniGPTBlock.__init__

    def __init__(self, config: MiniGPTConfig, layer_idx: int):
        build(self, config, layer_idx)
        self.input_layernorm = nn.Sequential(self.input_layernorm, ShortConvolution(config.hidden_size))

    with patch.object(modeling.MiniGPTBlock, "__init__", __init__):
        yield


@contextmanager
def value_embeddings() -> Iterator[None]:
    """Add an embedding of the token to the values of every layer (as in the speedruns of modded-nanogpt)."""
    build = SelfAttention.__init__
    project = SelfAttention.project
    embed = nn.Embedding.forward
    seen: dict[str, torch.Tensor] = {}

    def __init__(self, config: MiniGPTConfig, layer_idx: int):
        build(self, config, layer_idx)
        self.value_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        mark_zero_init(self.value_embedding)

    def project_with_tokens(self, *arguments):
        query, key, value = project(self, *arguments)
        tokens = embed(self.value_embedding, seen["ids"]).unflatten(-1, (value.shape[1], value.shape[3]))
        return query, key, value + tokens.transpose(1, 2)

    def remember(self, input_ids: torch.Tensor) -> torch.Tensor:
        seen["ids"] = input_ids
        return embed(self, input_ids)

    with (
        patch.object(SelfAttention, "__init__", __init__),
        patch.object(SelfAttention, "project", project_with_tokens),
        patch.object(nn.Embedding, "forward", remember),
    ):
        yield


@contextmanager
def residual_scalars() -> Iterator[None]:
    """Let a block scale its input and add a share of the embeddings, both learned (as in those speedruns)."""
    build = modeling.MiniGPTBlock.__init__
    run = modeling.MiniGPTBlock.forward
    place = modeling.MiniGPTModel.place
    seen: dict[str, torch.Tensor] = {}

    def __init__(self, config: MiniGPTConfig, layer_idx: int):
        build(self, config, layer_idx)
        self.shares = nn.Parameter(torch.tensor([1.0, 0.0]))

    def remember(self, *arguments):
        seen["embedded"], angles = place(self, *arguments)
        return seen["embedded"], angles

    def forward(self, hidden_states: torch.Tensor, *arguments, **kwargs) -> torch.Tensor:
        of_input, of_embedded = self.shares
        return run(self, of_input * hidden_states + of_embedded * seen["embedded"], *arguments, **kwargs)

    with (
        patch.object(modeling.MiniGPTBlock, "__init__", __init__),
        patch.object(modeling.MiniGPTBlock, "forward", forward),
        patch.object(modeling.MiniGPTModel, "place", remember),
    ):
        yield


@contextmanager
def polar_express() -> Iterator[None]:
    """Let Muon iterate by another polynomial each time, which come nearer to an orthogonal matrix."""

    def orthogonalize(matrices: torch.Tensor, coefficients, steps: int, eps: float) -> torch.Tensor:
        tall = matrices.shape[-2] > matrices.shape[-1]
        x = matrices.mT if tall else matrices
        x = x / (1.01 * x.norm(dim=(-2, -1), keepdim=True)).clamp(min=eps)
        for a, b, c in POLAR_EXPRESS:
            gram = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
        return x.mT if tall else x

    with patch.object(optimizers, "orthogonalize", orthogonalize):
        yield


@contextmanager
def four_iterations() -> Iterator[None]:
    """Let Muon iterate four times instead of five, which leaves more of the small singular values small."""
    iterate = optimizers.orthogonalize

    def orthogonalize(matrices: torch.Tensor, coefficients, steps: int, eps: float) -> torch.Tensor:
        return iterate(matrices, coefficients, steps - 1, eps)

    with patch.object(optimizers, "orthogonalize", orthogonalize):
        yield


IDEAS = {
    "n-gram embeddings": ngram_embeddings,
    "short convolutions": short_convolutions,
    "value embeddings": value_embeddings,
    "residual scalars": residual_scalars,
    "Muon, four iterations": four_iterations,
    "Polar Express": polar_express,
}
