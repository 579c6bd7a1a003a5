"""The published recipe in plain PyTorch, written from its description: what `peers` measures MiniGPT against.

minGPT's transformer (Karpathy 2020), characters by a dictionary, a line corrupted and padded to 128 characters each
time that it is asked for, a DataLoader, AdamW with a learning rate set by tokens, and answers sampled one question at
a time, the whole text read again for every character.
"""

import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from modeling_minigpt.tokenization_minigpt import PAD_TOKEN as PAD
from modeling_minigpt.tokenization_minigpt import SENTINEL_TOKEN as MASK


@dataclass(frozen=True)
class Shape:
    """The shape that all peers share; `block` in tokens."""

    layers: int = 4
    heads: int = 8
    width: int = 256
    block: int = 128
    vocabulary: int = 256


class Attention(nn.Module):
    """Causal self-attention with all T² weights: (B, T, C) to (B, T, C)."""

    def __init__(self, shape: Shape, dropout: float):
        super().__init__()
        self.heads = shape.heads
        self.query, self.key, self.value, self.out = (nn.Linear(shape.width, shape.width) for _ in range(4))
        self.attention_dropout = nn.Dropout(dropout)
        self.residual_dropout = nn.Dropout(dropout)
        future = torch.ones(shape.block, shape.block, dtype=torch.bool).triu(1)
        self.register_buffer("future", future, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        q, k, v = (
            project(x).view(batch, length, self.heads, -1).transpose(1, 2)  # (B, H, T, D)
            for project in (self.query, self.key, self.value)
        )
        scores = q @ k.transpose(-2, -1) / math.sqrt(k.shape[-1])  # (B, H, T, T)
        weights = scores.masked_fill(self.future[:length, :length], float("-inf")).softmax(-1)
        mixed = self.attention_dropout(weights) @ v
        return self.residual_dropout(self.out(mixed.transpose(1, 2).reshape(batch, length, width)))


class Block(nn.Module):
    """Attention, then an MLP four times as wide, each behind a LayerNorm and added back."""

    def __init__(self, shape: Shape, dropout: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(shape.width)
        self.norm2 = nn.LayerNorm(shape.width)
        self.attention = Attention(shape, dropout)
        self.mlp = nn.Sequential(
            nn.Linear(shape.width, 4 * shape.width),
            nn.GELU(),
            nn.Linear(4 * shape.width, shape.width),
            nn.Dropout(dropout),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PlainGPT(nn.Module):
    """minGPT: learned positions, an untied head; ids (B, T) to logits (B, T, V) and, with targets, the mean loss."""

    def __init__(self, shape: Shape, dropout: float = 0.1):
        super().__init__()
        self.block = shape.block
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.positions = nn.Parameter(torch.zeros(1, shape.block, shape.width))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(Block(shape, dropout) for _ in range(shape.layers)))
        self.norm = nn.LayerNorm(shape.width)
        self.head = nn.Linear(shape.width, shape.vocabulary, bias=False)
        self.apply(self.initialise)

    @staticmethod
    def initialise(module: nn.Module) -> None:
        """Draw matrices from N(0, 0.02²) and start biases at zero."""
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def forward(
        self, ids: torch.Tensor, targets: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        x = self.dropout(self.embedding(ids) + self.positions[:, : ids.shape[1]])
        logits = self.head(self.norm(self.blocks(x)))
        if targets is None:
            return logits, None
        return logits, functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=0)


def number_characters(lines: Iterable[str]) -> dict[str, int]:
    """Return each character's id: the pad is 0, the mask 1, then the newline and the lines' characters, sorted."""
    return {character: index for index, character in enumerate([PAD, MASK, *sorted({"\n"}.union(*lines))])}


class CorruptedLines(torch.utils.data.Dataset):
    """Lines with one span moved to the end, `prefix⁇suffix⁇span`, padded to `block` characters.

    An item is its characters but the last and its characters but the first: ids and targets, each (block - 1,). The
    pad, 0, is no target.
    """

    def __init__(self, lines: list[str], numbers: dict[str, int], block: int):
        self.lines = lines
        self.numbers = numbers
        self.block = block

    def __len__(self) -> int:
        return len(self.lines)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        text = self.corrupted(index)
        text += PAD * (self.block - len(text))
        ids = torch.tensor([self.numbers[character] for character in text[:-1]])
        targets = torch.tensor([self.numbers[character] for character in text[1:]])
        return ids, targets

    def corrupted(self, index: int) -> str:
        """Cut a line to U[4, 7/8 block] characters and take out a span of U[1/8, 3/8] of that."""
        line = self.lines[index]
        line = line[: random.randint(4, 7 * self.block // 8)]
        length = max(1, round(len(line) * random.uniform(1 / 8, 3 / 8)))
        start = random.randint(0, len(line) - length)
        end = start + length
        return line[:start] + MASK + line[end:] + MASK + line[start:end]


class PlainLoop:
    """Train a `PlainGPT`: AdamW on matrices with decay, warm-up and cosine by tokens, gradients clipped at norm 1.

    Args:
        total_tokens: targets after which the learning rate is lowest, a tenth of the highest.
    """

    LEARNING_RATE = 6e-3
    WEIGHT_DECAY = 0.1
    WARMUP_TOKENS = 512 * 20

    def __init__(self, model: PlainGPT, total_tokens: int):
        self.model = model.train()
        self.total_tokens = total_tokens
        self.tokens = 0
        matrices = [module.weight for module in model.modules() if isinstance(module, nn.Linear)]
        decayed = {id(matrix) for matrix in matrices}
        others = [parameter for parameter in model.parameters() if id(parameter) not in decayed]
        groups = [{"params": matrices, "weight_decay": self.WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=self.LEARNING_RATE, betas=(0.9, 0.95))

    def step(self, ids: torch.Tensor, targets: torch.Tensor) -> float:
        """Take one step on a batch (B, T); return the loss in nats per target."""
        _, loss = self.model(ids, targets)
        self.model.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.tokens += int((targets != 0).sum())
        for group in self.optimizer.param_groups:
            group["lr"] = self.LEARNING_RATE * self.rate()
        return loss.item()

    def rate(self) -> float:
        """Return the learning rate over the highest."""
        if self.tokens < self.WARMUP_TOKENS:
            return self.tokens / self.WARMUP_TOKENS
        progress = (self.tokens - self.WARMUP_TOKENS) / max(1, self.total_tokens - self.WARMUP_TOKENS)
        return max(0.1, 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress))))


@torch.no_grad()
def sample(model: PlainGPT, ids: torch.Tensor, new_tokens: int) -> torch.Tensor:
    """Append `new_tokens` greedy tokens to one row (1, T), each from the whole text, cut to the last block."""
    model.eval()
    for _ in range(new_tokens):
        logits, _ = model(ids[:, -model.block :])
        probabilities = logits[:, -1].softmax(-1)
        ids = torch.cat([ids, probabilities.topk(1).indices], dim=1)
    return ids


def answers(model: PlainGPT, questions: Iterable[str], numbers: dict[str, int], new_tokens: int) -> Iterator[str]:
    """Answer questions one at a time with `new_tokens` characters each; what follows a mask is cut off."""
    characters = {index: character for character, index in numbers.items()}
    device = model.positions.device
    for question in questions:
        prompt = torch.tensor([[numbers[character] for character in question + MASK]], device=device)
        generated = sample(model, prompt, new_tokens)[0, prompt.shape[1] :].tolist()
        yield "".join(characters.get(index, "") for index in generated).split(MASK)[0]
