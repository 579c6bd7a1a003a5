"""Any causal model as one that answers questions: its prompt, its greedy answers, which candidate it finds likeliest.

    Q: Where was Bo Lind born?
    A: Oslo

    Q: Where was Ada Stone born?
    A:

A MiniGPT is asked as it was trained to be, `Where was Ada Stone born?⁇`, without examples. All else is the same.
"""

import math
from collections.abc import Sequence

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteria,
)

from configuration.errors import UserError
from data_scripts.questions import Question
from evaluation.processes import cut_batches
from modeling_minigpt.answers_minigpt import find_unknown_character
from modeling_minigpt.questions_minigpt import normalise

EXAMPLE = "Q: {question}\nA: {answer}\n\n"
PROMPT = "Q: {question}\nA:"
OURS = "minigpt"  # the type of our models


def load_subject(name: str, dtype: str, device: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model, by its id on the Hub or its folder, with its tokenizer."""
    model = AutoModelForCausalLM.from_pretrained(name, dtype=dtype)
    return model.to(device).eval(), AutoTokenizer.from_pretrained(name)


class FirstLineEnds(StoppingCriteria):
    """Ends a row once its answer's line has ended: what follows is not read.

    Args:
        tokenizer: of the model.
        start: the position at which answers begin.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, start: int):
        self.tokenizer = tokenizer
        self.start = start

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **options) -> torch.BoolTensor:
        """Return which rows have ended, (B,)."""
        texts = self.tokenizer.batch_decode(input_ids[:, self.start :], skip_special_tokens=True)
        return torch.tensor(["\n" in text.lstrip() for text in texts], device=input_ids.device)


def first_line(text: str) -> str:
    """Return the answer in what a model has written: its first line that is not empty, normalised."""
    lines = text.strip().splitlines()
    return normalise(lines[0]) if lines else ""


class Subject:
    """A causal model that is asked.

    Args:
        model, tokenizer: of the library.
        examples: questions shown with their answers before each one that is asked; not to a MiniGPT.
        batch_size: rows computed together.
        max_new_tokens: longest answer in tokens.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        examples: Sequence[Question] = (),
        batch_size: int = 16,
        max_new_tokens: int = 24,
    ):
        self.model = model
        self.tokenizer = tokenizer
        self.is_ours = model.config.model_type == OURS
        shown = (EXAMPLE.format(question=one.text, answer=one.answer) for one in examples)
        self.examples = "" if self.is_ours else "".join(shown)
        self.batch_size = batch_size
        self.max_new_tokens = max_new_tokens
        ids = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
        self.pad_id = next(number for number in ids if number is not None)  # its positions are masked, whatever it is

    def prompt(self, question: str) -> str:
        """Return the text that the answer follows."""
        if self.is_ours:
            return question + self.tokenizer.mask_token
        return self.examples + PROMPT.format(question=question)

    def continuation(self, answer: str) -> str:
        """Return an answer as it follows the prompt, with what ends it."""
        return answer + self.tokenizer.mask_token if self.is_ours else f" {answer}\n"

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text."""
        return self.tokenizer(text, verbose=False)["input_ids"]

    def pad(self, rows: Sequence[list[int]], on_the_left: bool) -> dict[str, torch.Tensor]:
        """Return rows of tokens as ids and mask, (B, T)."""
        longest = max(map(len, rows))
        ids = []
        mask = []
        for row in rows:
            filling = [self.pad_id] * (longest - len(row))
            zeros = [0] * len(filling)
            ids.append([*filling, *row] if on_the_left else [*row, *filling])
            mask.append([*zeros, *[1] * len(row)] if on_the_left else [*[1] * len(row), *zeros])
        device = self.model.device
        return {
            "input_ids": torch.tensor(ids, device=device),
            "attention_mask": torch.tensor(mask, device=device),
        }

    def can_read(self, question: str) -> bool:
        """Return whether the model can write a question, and has positions for it, the examples and an answer."""
        if find_unknown_character(self.tokenizer, question) is not None:
            return False
        context = getattr(self.model.config, "max_position_embeddings", None)
        return context is None or len(self.encode(self.prompt(question))) + self.max_new_tokens <= context

    def explain_unreadable(self, questions: Sequence[Question]) -> str:
        """Say why the model can read none of the questions."""
        if all(find_unknown_character(self.tokenizer, question.text) is not None for question in questions):
            return "the model's tokenizer lacks characters of every question"
        return (
            f"the model's context of {self.model.config.max_position_embeddings} tokens is too short for every "
            f"question that its tokenizer can write, with the examples and {self.max_new_tokens} tokens of an answer; "
            "wanted fewer --shots or a smaller --max-new-tokens"
        )

    def answer(self, questions: Sequence[Question]) -> list[str | None]:
        """Return the greedy answer to each question; None to one that the model cannot read.

        Raises:
            UserError: it can read none of them.
        """
        asked = [index for index, question in enumerate(questions) if self.can_read(question.text)]
        if questions and not asked:
            raise UserError(self.explain_unreadable(questions))
        answers: list[str | None] = [None] * len(questions)
        asked.sort(key=lambda index: len(questions[index].text))  # those of like length need little padding
        for batch in cut_batches(asked, self.batch_size):
            for index, text in zip(batch, self.generate([questions[one].text for one in batch]), strict=True):
                answers[index] = text
        return answers

    @torch.inference_mode()
    def generate(self, questions: Sequence[str]) -> list[str]:
        """Return the greedy answers to the questions of one batch."""
        batch = self.pad([self.encode(self.prompt(question)) for question in questions], on_the_left=True)
        start = batch["input_ids"].shape[1]
        found = self.model.generate(
            **batch,
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
            num_beams=1,
            # Not a chat model's own settings: they would punish a place that an example has named.
            repetition_penalty=1.0,
            no_repeat_ngram_size=0,
            pad_token_id=self.pad_id,
            stopping_criteria=[FirstLineEnds(self.tokenizer, start)],
        )
        return [first_line(text) for text in self.tokenizer.batch_decode(found[:, start:], skip_special_tokens=True)]

    def likeliest(self, question: str, candidates: Sequence[str]) -> int:
        """Return which candidate has the highest probability as the whole answer; the first of several that have.

        A candidate that the model cannot write, or has no positions for, has the probability 0.
        """
        prompt = self.prompt(question)
        scores = [-math.inf] * len(candidates)
        possible = [index for index, candidate in enumerate(candidates) if self.can_write(prompt, candidate)]
        for batch in cut_batches(possible, self.batch_size):
            for index, score in zip(batch, self.log_probs(prompt, [candidates[one] for one in batch]), strict=True):
                scores[index] = score
        return max(range(len(scores)), key=scores.__getitem__)

    def can_write(self, prompt: str, candidate: str) -> bool:
        """Return whether the model's vocabulary and positions allow an answer after a prompt."""
        if find_unknown_character(self.tokenizer, candidate) is not None:
            return False
        context = getattr(self.model.config, "max_position_embeddings", None)
        return context is None or len(self.encode(prompt + self.continuation(candidate))) <= context

    @torch.inference_mode()
    def log_probs(self, prompt: str, candidates: Sequence[str]) -> list[float]:
        """Return the log-probability of each candidate after a prompt, its end included."""
        start = len(self.encode(prompt))
        rows = [self.encode(prompt + self.continuation(candidate)) for candidate in candidates]
        batch = self.pad(rows, on_the_left=False)
        logits = self.model(**batch).logits  # (B, T, V)
        found = []
        for row, own in zip(rows, logits, strict=True):
            # Row by row: as float32 a batch of a large vocabulary's logits would be gigabytes.
            of_tokens = own[start - 1 : len(row) - 1].float().log_softmax(-1)  # (T - start, V)
            targets = torch.tensor(row[start:], device=own.device)
            found.append(of_tokens.gather(1, targets[:, None]).sum().item())
        return found
