"""Features of an answer: what a model shows, under several prompts about the same person, of how much it knows.

A person seen in pretraining is recalled under several prompts: the answer is as probable after the beginning of a
biography as after a question, and other beginnings recall something as well. For a stranger the next token is
uncertain under all of them, and so is the name itself: a biography begins with it, and whoever has read the biography
expects the last name after the first.
"""

import math
from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .answers_minigpt import Answer
from .relations_minigpt import BIRTHPLACE, Relation

FEATURES = ("answer", "empty_answer", "neg_entropy")
CANDIDATES_FEATURE = "candidates: neg_entropy"
TITLE_FEATURES = ("title: mean", "title: least")


def prompt_templates(relation: Relation) -> dict[str, str]:
    """Return the ways of asking for a relation by their labels: the question, then the prompts.

    A prompt's label is what comes after the name: "born in" of "{name}. born in", "name" of "{name}.". A prompt whose
    label is taken is its own label.
    """
    templates = {"question": relation.question}
    for prompt in relation.prompts:
        label = prompt.partition("{name}")[2].removeprefix(".").strip() or "name"
        # "candidates" is the label of a feature that is not of a prompt.
        templates[prompt if label in templates or label == "candidates" else label] = prompt
    return templates


def format_title(name: str) -> str:
    """Return a name as the title of a biography: with a full stop, which is the name's own in "Bo Lind Jr."."""
    return name if name.endswith(".") else f"{name}."


def format_prompts(name: str, relation: Relation = BIRTHPLACE) -> list[str]:
    """Return the ways of asking about a name, in the order of `prompt_templates`."""
    title = format_title(name)
    prompts = [prompt.replace("{name}.", title).replace("{name}", name) for prompt in relation.prompts]
    return [relation.format(name), *prompts]


def feature_names(relation: Relation) -> list[str]:
    """Return the names of a relation's features, in the order of the columns of every feature matrix, (F,)."""
    of_prompts = [f"{prompt}: {what}" for prompt in prompt_templates(relation) for what in FEATURES]
    return [*of_prompts, CANDIDATES_FEATURE, *TITLE_FEATURES]


FEATURE_NAMES = feature_names(BIRTHPLACE)
MIN_LOG_PROB = -12.0  # nats; below it, differences say nothing and would outweigh every other feature


@torch.inference_mode()
def answer_features(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], answers: Sequence[str]
) -> dict[str, torch.Tensor]:
    """Score an answer after each `prompt⁇`.

    Returns:
        "answer": the log-probability of the answer; "empty_answer": that of an empty one; "neg_entropy": minus the
        entropy of the first token; each (B,), in nats.
    """
    # The row "Where was Ada born? ⁇ Rome ⁇" has a prompt that ends with the sentinel and an answer that ends with it,
    # too. The prompt's last token predicts the first of the answer, so what predicts it begins one place before it.
    opened = tokenizer([prompt + tokenizer.mask_token for prompt in prompts])["input_ids"]
    closed = [
        [*ids, tokenizer.eos_token_id][: model.config.max_position_embeddings - len(prompt)]  # the model's context
        for prompt, ids in zip(opened, tokenizer(list(answers))["input_ids"], strict=True)
    ]
    rows = [torch.tensor(prompt + answer) for prompt, answer in zip(opened, closed, strict=True)]
    tokens = pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id).to(model.device)  # (B, T)
    starts = torch.tensor([len(prompt) - 1 for prompt in opened], device=model.device)[:, None]
    lengths = torch.tensor([len(answer) for answer in closed], device=model.device)[:, None]
    offsets = torch.arange(int(lengths.max()), device=model.device)[None]
    # Clamped for rows whose answer is shorter than the longest one; what they read there is masked below.
    places = (starts + offsets).clamp(max=tokens.shape[1] - 2)  # (B, A): what predicts the answer's tokens
    states = model.base_model(tokens).last_hidden_state  # (B, T, C); no token sees the padding after it
    states = states.gather(1, places[..., None].expand(-1, -1, states.shape[-1]))
    # The head is applied at these places alone: V columns for every token would be most of the work.
    following = model.get_output_embeddings()(states).float().log_softmax(-1)  # (B, A, V)
    said = following.gather(-1, tokens.gather(1, places + 1)[..., None])[..., 0]  # (B, A)
    first = following[:, 0]
    return {
        "answer": said.masked_fill(offsets >= lengths, 0.0).sum(-1),
        "empty_answer": first[:, tokenizer.eos_token_id],
        "neg_entropy": (first.exp() * first).sum(-1),
    }


@torch.inference_mode()
def title_features(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, names: Sequence[str]
) -> dict[str, torch.Tensor]:
    """Score each name as the title of a biography, token by token.

    Returns:
        "mean" and "least": the mean and the minimum of its tokens' log-probabilities, each (B,), in nats. The first
        token has no context and is left out; a title of one token has 0.
    """
    rows = [torch.tensor(ids) for ids in tokenizer([format_title(name) for name in names])["input_ids"]]
    tokens = pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id).to(model.device)  # (B, T)
    lengths = torch.tensor([len(row) - 1 for row in rows], device=model.device)  # of what is predicted
    following = model(tokens).logits[:, :-1].float().log_softmax(-1)  # (B, T - 1, V)
    said = following.gather(-1, tokens[:, 1:, None])[..., 0]  # (B, T - 1)
    is_padding = torch.arange(said.shape[1], device=model.device) >= lengths[:, None]
    said = said.masked_fill(is_padding, 0.0)  # no log-probability is above 0, so the least is not among these
    return {
        "mean": said.sum(-1) / lengths.clamp(min=1),
        "least": said.min(-1).values if said.shape[1] else said.sum(-1),
    }


def candidates_neg_entropy(candidates: Sequence[Answer]) -> float:
    """Return minus the entropy of one question's candidates, in nats; the remaining probability counts as one more."""
    shares = [candidate.probability for candidate in candidates]
    # Without the remaining probability, two unlikely candidates would look like certainty.
    shares.append(max(0.0, 1.0 - sum(shares)))
    return sum(share * math.log(share) for share in shares if share > 0.0)


def confidence_features(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    names: Sequence[str],
    ranked: Sequence[Sequence[Answer]],
    relation: Relation = BIRTHPLACE,
) -> torch.Tensor:
    """Measure the features of the best answer for each name of one batch, (B, F) in the order of `feature_names`.

    Log-probabilities are clamped at `MIN_LOG_PROB`. That of the empty answer is negated, so that a higher value of any
    feature speaks for the answer.
    """
    answers = [candidates[0].text for candidates in ranked]
    columns = []
    for prompts in zip(*(format_prompts(name, relation) for name in names), strict=True):
        found = answer_features(model, tokenizer, prompts, answers)
        # A model that would rather end at once guesses: the empty answer's probability is a sign of that.
        columns += [found["answer"].clamp(min=MIN_LOG_PROB), -found["empty_answer"]]
        columns += [found["neg_entropy"].clamp(min=MIN_LOG_PROB)]
    columns.append(torch.tensor([candidates_neg_entropy(candidates) for candidates in ranked]))
    columns += [column.clamp(min=MIN_LOG_PROB) for column in title_features(model, tokenizer, names).values()]
    return torch.stack([column.cpu().double().clamp(max=-MIN_LOG_PROB) for column in columns], dim=1)
