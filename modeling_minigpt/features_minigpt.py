"""Features of an answer: what a model shows, under several prompts about the same person, of how much it knows.

A person seen in pretraining is recalled under several prompts: the answer is as probable after the beginning of a
biography as after a question, and other beginnings recall something as well. For a stranger the next token is
uncertain under all of them, and so is the name itself: a biography begins with it, and whoever has read the biography
expects the last name after the first.
"""

import math
from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .answer_trie_minigpt import pad_rows
from .answers_minigpt import Answer, find_unknown_character
from .evaluation_mode_minigpt import as_calibrated
from .reading_minigpt import ReadTexts, continue_texts, next_logits, open_questions, read_texts
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


def explain_unreadable(
    tokenizer: PreTrainedTokenizerBase, names: Sequence[str], relation: Relation, room: int
) -> list[str | None]:
    """Return why a model cannot read a name in all ways of asking about it, for each name; None where it can.

    Args:
        room: tokens that it reads before an answer.
    """
    if not names:  # of which the tokenizer makes an error
        return []
    prompts = [prompt for name in names for prompt in format_prompts(name, relation)]
    try:
        lengths = list(map(len, open_questions(tokenizer, prompts)))
    except Exception:  # of the first name that it cannot write: each is tried by itself
        if len(names) > 1:
            return [explain_unreadable(tokenizer, [name], relation, room)[0] for name in names]
        if find_unknown_character(tokenizer, names[0]) is None:
            raise
        return ["contains a character that is not in the model's vocabulary"]
    specials = tokenizer.all_special_tokens
    ways = len(prompts) // len(names)
    reasons: list[str | None] = []
    for number, name in enumerate(names):
        longest = max(lengths[ways * number : ways * (number + 1)])
        special = next((token for token in specials if token in name), None)
        if special is not None:
            reasons.append(f"contains the special token {special!r}")
        else:
            reasons.append(
                f"{longest} tokens long, the model reads {room} before an answer" if longest > room else None
            )
    return reasons


def feature_names(relation: Relation) -> list[str]:
    """Return the names of a relation's features, in the order of the columns of every feature matrix, (F,)."""
    of_prompts = [f"{prompt}: {what}" for prompt in prompt_templates(relation) for what in FEATURES]
    return [*of_prompts, CANDIDATES_FEATURE, *TITLE_FEATURES]


FEATURE_NAMES = feature_names(BIRTHPLACE)
MIN_LOG_PROB = -12.0  # nats; below it, differences say nothing and would outweigh every other feature


@torch.inference_mode()
def answer_features(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    answers: Sequence[str],
    read: ReadTexts | None = None,
) -> dict[str, torch.Tensor]:
    """Score an answer after each `prompt⁇`.

    Args:
        read: N texts that have been read, of which the prompts' beginnings are not read again: the first N prompts
            begin with one each, in their order, and so do the next N.

    Returns:
        "answer": the log-probability of the answer; "empty_answer": that of an empty one; "neg_entropy": minus the
        entropy of the first token; each (B,), in nats.
    """
    opened = open_questions(tokenizer, prompts)
    closed = [
        [*ids, tokenizer.eos_token_id][: model.config.max_position_embeddings - len(prompt)]  # the model's context
        for prompt, ids in zip(opened, tokenizer(list(answers))["input_ids"], strict=True)
    ]
    begun = [] if read is None else [read.ids[number % len(read.ids)] for number in range(len(opened))]
    # A tokenizer may write "Ada." otherwise where more follows.
    if read is None or any(ids[: len(start)] != start for ids, start in zip(opened, begun, strict=True)):
        read = read_texts(model, opened, tokenizer.pad_token_id)
        begun = opened
    rests = [ids[len(start) :] for ids, start in zip(opened, begun, strict=True)]
    # Of "Ada.", continued by " born in⁇ Rome⁇", the last token is predicted alone, so it is not read.
    states = continued_states(model, read, [rest + answer[:-1] for rest, answer in zip(rests, closed, strict=True)])
    tokens = pad_rows(closed).to(model.device)  # (B, A)
    starts = torch.tensor([len(rest) for rest in rests], device=model.device)[:, None]
    # What predicts the answer's tokens; clamped for rows whose answer is shorter than the longest one.
    places = (starts + torch.arange(tokens.shape[1], device=model.device)).clamp(max=states.shape[1] - 1)  # (B, A)
    states = states.gather(1, places[..., None].expand(-1, -1, states.shape[-1]))
    following = next_logits(model, states).log_softmax(-1)  # (B, A, V)
    said = following.gather(-1, tokens.clamp(min=0)[..., None])[..., 0]  # (B, A)
    first = following[:, 0]
    return {
        "answer": said.masked_fill(tokens < 0, 0.0).sum(-1),
        "empty_answer": first[:, tokenizer.eos_token_id],
        "neg_entropy": (first.exp() * first).sum(-1),
    }


def continued_states(model: PreTrainedModel, read: ReadTexts, continuations: Sequence[list[int]]) -> torch.Tensor:
    """Return the last states of N texts, and those of what continues them behind it, (R, 1 + S, C).

    Args:
        continuations: tokens, none perhaps, of the R = k N continuations, as in `answer_features`.
    """
    tokens = pad_rows(continuations).to(model.device)  # (R, S)
    numbers = torch.arange(len(tokens), device=model.device) % len(read.ids)
    last = read.states[numbers, -1:]
    if not tokens.numel():
        return last
    return torch.cat([last, continue_texts(model, read, numbers, tokens.clamp(min=0), tokens >= 0)], dim=1)


def read_titles(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, names: Sequence[str]) -> ReadTexts:
    """Read each name of one batch as the title of a biography."""
    return read_texts(model, tokenizer([format_title(name) for name in names])["input_ids"], tokenizer.pad_token_id)


@torch.inference_mode()
def title_features(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    names: Sequence[str],
    titles: ReadTexts | None = None,
) -> dict[str, torch.Tensor]:
    """Score each name as the title of a biography, token by token; `titles` are the same, where they have been read.

    Returns:
        "mean" and "least": the mean and the minimum of its tokens' log-probabilities, each (B,), in nats. The first
        token has no context and is left out; a title of one token has 0.
    """
    titles = titles or read_titles(model, tokenizer, names)
    following = next_logits(model, titles.states[:, :-1]).log_softmax(-1)  # (B, T - 1, V)
    said = following.gather(-1, titles.tokens[:, 1:, None])[..., 0]  # (B, T - 1)
    real = titles.mask[:, :-1]  # padded on the left, so a token follows each token but the last
    said = said.masked_fill(real == 0, 0.0)  # no log-probability is above 0, so the least is not among these
    return {
        "mean": said.sum(-1) / real.sum(-1).clamp(min=1),
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
    questions: ReadTexts | None = None,
) -> torch.Tensor:
    """Measure the features of the best answer for each name of one batch, (B, F) in the order of `feature_names`.

    Log-probabilities are clamped at `MIN_LOG_PROB`. That of the empty answer is negated, so that a higher value of any
    feature speaks for the answer. `questions` are the relation's, where they have been read.
    """
    answers = [candidates[0].text for candidates in ranked]
    asked, *others = zip(*(format_prompts(name, relation) for name in names), strict=True)
    with as_calibrated(model):
        titles = read_titles(model, tokenizer, names)
        of_titles = title_features(model, tokenizer, names, titles)
        found = [answer_features(model, tokenizer, asked, answers, questions)]
        if others:  # most of them begin with the title, so it is read once for all
            prompts = [prompt for several in others for prompt in several]
            found.append(answer_features(model, tokenizer, prompts, answers * len(others), titles))
    by_feature = [torch.cat([one[name] for one in found]).view(-1, len(names)) for name in FEATURES]  # (P, B) each
    columns = []
    for answer, empty_answer, neg_entropy in zip(*by_feature, strict=True):
        # A model that would rather end at once guesses: the empty answer's probability is a sign of that.
        columns += [answer.clamp(min=MIN_LOG_PROB), -empty_answer, neg_entropy.clamp(min=MIN_LOG_PROB)]
    columns.append(torch.tensor([candidates_neg_entropy(one) for one in ranked], dtype=torch.float32))
    columns += [one.clamp(min=MIN_LOG_PROB) for one in of_titles.values()]
    return torch.stack([column.cpu().double().clamp(max=-MIN_LOG_PROB) for column in columns], dim=1)
