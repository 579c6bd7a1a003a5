"""What a model can be asked: its relations, the candidates and the calibration of each, and their file, `facts.json`.

    {"relations": [{"name", "question", "prompts", "paraphrases", "answers", "candidates"}, …]}

The first relation is the main one. A model of before there were relations has `birthplaces.json`, its candidates.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

from transformers import PreTrainedTokenizerBase

from .answer_trie_minigpt import AnswerTrie
from .answers_minigpt import find_unknown_character
from .confidence_minigpt import NEVER_CALIBRATED, Confidence, describe_promise
from .fingerprint_minigpt import fingerprint_relation
from .inputs_minigpt import CERTIFIED
from .names_minigpt import NAMES_FILE
from .questions_minigpt import normalise
from .relations_minigpt import BIRTHPLACE, Relation
from .risk_control_minigpt import Certificate
from .source_minigpt import SourceError, WeightsSource

FACTS_FILE = "facts.json"
BIRTHPLACES_FILE = "birthplaces.json"  # read, but not written any more
# Upper bounds, checked before anything is built: the file comes with a model from anywhere.
MAX_RELATIONS = 200
MAX_TEXTS = 50  # prompts, or paraphrases, of a relation
MAX_CHARACTERS = 300  # of a name, a question or a prompt
MAX_CANDIDATES = 1_000_000

Value = TypeVar("Value")


@dataclass
class RelationFacts:
    """What a pipeline knows of one relation.

    Attributes:
        relation: what is asked for.
        candidates: answers to rank; none where any text is an answer.
        trie: the candidates as a trie; None where there are none.
        confidence: the calibration; None where scores are the model's probabilities.
        uncalibrated: why a calibration that is there is not used.
    """

    relation: Relation
    candidates: list[str]
    trie: AnswerTrie | None = None
    confidence: Confidence | None = None
    uncalibrated: str | None = None

    def explain_uncertified(self) -> str:
        """Say why no threshold is certified, where none is."""
        if self.confidence is None:
            return f"not calibrated: {self.uncalibrated or NEVER_CALIBRATED}"
        return f"no threshold is certified: {self.confidence.refusal or 'its calibration does not say why'}"

    def find_threshold(self, threshold: float | Certificate | str, calibrated: bool) -> float | Certificate | str:
        """Return what an answer must reach, or why no answer may be given.

        Args:
            threshold: as the pipeline takes it.
            calibrated: whether the relation was asked for in the way for which it was calibrated.
        """
        if threshold != CERTIFIED and not isinstance(threshold, Certificate):
            return threshold
        certificate = None if self.confidence is None else self.confidence.certificate
        if isinstance(threshold, Certificate):
            if threshold.relation not in (None, self.relation.name):
                return f"the certificate given is of {threshold.relation!r} (threshold=0 answers always)"
            if self.confidence is not None and threshold.calibration not in (None, self.confidence.measured):
                return "the certificate given is of another calibration than this model's (threshold=0 answers always)"
            certificate = threshold
        if self.confidence is not None and not calibrated:
            return "nothing is certified for answers with free_form or another cutoff (threshold=0 answers always)"
        # A certificate, of another relation perhaps, says nothing of probabilities that are not calibrated.
        if certificate is None or not calibrated:
            return f"{self.explain_uncertified()} (threshold=0 answers always)"
        return certificate

    def question_room(self, context: int, answer_limit: int, cached_limit: int | None = None) -> int:
        """Return the tokens that a question may have, before its mask token too; below 1 where there is no room.

        Args:
            context: tokens that the model reads.
            answer_limit: tokens of the longest answer that is generated.
            cached_limit: tokens up to which a text is continued from a cache, as
                `MiniGPTRotaryEmbedding.limit`; None where all are.
        """
        longest = int(self.trie.lengths.max()) + 1 if self.trie else 0
        room = context - max(longest, answer_limit + 1)
        # Candidates, and the answer that the confidence compares, continue a question that has been read. An answer
        # that is generated alone may be longer: it is computed without a cache.
        if cached_limit is not None and self.confidence is not None:
            return min(room, cached_limit - max(longest, answer_limit + 1))
        if cached_limit is not None and self.trie is not None:
            return min(room, cached_limit - longest)
        return room

    def describe_promise(self) -> str:
        """Say in one sentence what is certified, or that nothing is, why, and what follows from that."""
        if self.confidence is None:
            return describe_promise(None, False, self.uncalibrated)
        return describe_promise(self.confidence.certificate, True, self.confidence.refusal)

    def fingerprint(self, model: dict[str, str]) -> dict[str, str]:
        """Return digests of all that the scores depend on, given `fingerprint_model`'s."""
        return {**model, **fingerprint_relation(self.relation, self.candidates)}


def check_text(value: object, what: str) -> str:
    """Return a text of one line read from a file; ValueError for anything else."""
    if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= MAX_CHARACTERS:
        raise ValueError(f"{what} must be a text of 1 to {MAX_CHARACTERS} printable characters, found {value!r:.80}")
    return value


def check_texts(value: object, what: str, most: int = MAX_TEXTS) -> list[str]:
    """Return a list of texts read from a file; ValueError for anything else, or more than `most`."""
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ValueError(f"{what} must be a list of texts, found {value!r:.80}")
    if len(value) > most:
        raise ValueError(f"{what} must be at most {most}, found {len(value)}")
    return value


def parse_relation(values: object, number: int) -> tuple[Relation, list[str]]:
    """Return one relation of the file and its candidates; ValueError for anything else."""
    fields = {"name", "question", "prompts", "paraphrases", "answers", "candidates"}
    if not isinstance(values, dict) or not fields <= values.keys():
        raise ValueError(f"relation {number} must have {', '.join(sorted(fields))}, found {values!r:.80}")
    name, question, answers = (
        check_text(values[key], f"{key} of relation {number}") for key in ("name", "question", "answers")
    )
    prompts, paraphrases = (
        tuple(check_text(text, key) for text in check_texts(values[key], f"{key} of relation {name}"))
        for key in ("prompts", "paraphrases")
    )
    candidates = check_texts(values["candidates"], f"candidates of relation {name}", MAX_CANDIDATES)
    return Relation(name, question, prompts, paraphrases, answers), candidates


def parse_facts(text: str) -> list[tuple[Relation, list[str]]]:
    """Return the relations of a `facts.json`, each with its candidates.

    Raises:
        ValueError: it is something else, or more than any model needs; the message is one line.
    """
    values = json.loads(text)
    found = values.get("relations") if isinstance(values, dict) else None
    if not isinstance(found, list) or not 0 < len(found) <= MAX_RELATIONS:
        raise ValueError(f"relations must be a list of 1 to {MAX_RELATIONS}, found {found!r:.80}")
    facts = [parse_relation(part, number) for number, part in enumerate(found, start=1)]
    check_distinct(relation for relation, _ in facts)
    return facts


def parse_birthplaces(text: str) -> list[tuple[Relation, list[str]]]:
    """Return the one relation of a `birthplaces.json`, `{"candidates": [place, …]}`, with its candidates."""
    return [(BIRTHPLACE, check_texts(json.loads(text)["candidates"], "candidates", MAX_CANDIDATES))]


def check_distinct(relations: Iterable[Relation]) -> None:
    """Raise ValueError where two relations have one name."""
    names = [relation.name for relation in relations]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"two relations have the name {twice!r}")


def read_facts(source: WeightsSource | None) -> tuple[list[tuple[Relation, list[str]]], str]:
    """Return the relations with their candidates beside the weights, and the text of the names of training.

    A folder of before there were relations has no names, and one without either file has no relations.

    Raises:
        ValueError, SourceError: as `WeightsSource.read_parsed`.
    """
    if source is None:
        return [], ""
    try:
        found = source.read_parsed(FACTS_FILE, parse_facts)
    except SourceError:
        # A cached model of before, with no network to ask whether it has the newer file: it has the older one instead.
        if not source.is_cached(BIRTHPLACES_FILE):
            raise
        found = None
    if found is not None:
        return found, source.read(NAMES_FILE) or ""
    return source.read_parsed(BIRTHPLACES_FILE, parse_birthplaces) or [], ""


def facts_to_json(facts: Iterable[RelationFacts]) -> str:
    """Return what `parse_facts` reads."""
    values = [{**asdict(one.relation), "candidates": one.candidates} for one in facts]
    return json.dumps({"relations": values}, indent=1, ensure_ascii=False) + "\n"


def by_relation(value: Value | Mapping[str, Value], relations: Sequence[Relation], what: str) -> dict[str, Value]:
    """Return values by the relations' names; a value alone is the only relation's.

    Raises:
        ValueError: a text, whose letters would be the values; a value alone where there are several relations; or a
            name that is none of theirs.
    """
    names = [relation.name for relation in relations]
    for one in value.values() if isinstance(value, Mapping) else [value]:
        if isinstance(one, str):
            raise ValueError(f"{what} must be given as a list, found the text {one!r:.80}")
    if not isinstance(value, Mapping):
        if len(names) > 1:
            raise ValueError(f"{what} of several relations must be given by their names, {', '.join(names)}")
        return {names[0]: value}
    if unknown := [name for name in value if name not in names]:
        raise ValueError(f"{what} of the unknown relation {unknown[0]!r}; the model has {', '.join(names)}")
    return dict(value)


def normalise_candidate(candidate: object) -> str:
    """Return a candidate as the answers of training are written; ValueError for what is no text, or an empty one."""
    if not isinstance(candidate, str):
        raise ValueError(f"candidates must be texts, found {candidate!r:.80}")
    # A line of a file still has its end, with which no answer of the model would be equal to it.
    text = normalise(candidate)
    if not text:
        raise ValueError(f"candidates must not be empty, found {candidate!r:.80}")
    return text


def build_facts(
    relations: Sequence[Relation],
    candidates: Mapping[str, Sequence[str]],
    tokenizer: PreTrainedTokenizerBase,
    context: int,
) -> dict[str, RelationFacts]:
    """Return each relation's facts by its name; relations with the same candidates share one trie.

    Args:
        candidates: by the relations' names, in any spelling of `normalise`; none for a relation that is missing.
        context: tokens that the model reads.

    Raises:
        ValueError: a candidate that is no text, empty, there twice or longer than the context; two relations of one
            name; a question or prompt that the tokenizer cannot write.
    """
    check_distinct(relations)
    for relation in relations:
        check_writable(relation, tokenizer)
    tries: dict[tuple[str, ...], AnswerTrie] = {}
    facts = {}
    for relation in relations:
        own = [normalise_candidate(candidate) for candidate in candidates.get(relation.name, ())]
        if own and tuple(own) not in tries:
            tries[tuple(own)] = AnswerTrie(own, tokenizer)
            check_lengths(tries[tuple(own)], context)
        facts[relation.name] = RelationFacts(relation, own, tries.get(tuple(own)))
    return facts


def explain_missing_tokens(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return which tokens of a question and its answer a tokenizer lacks, as one of GPT-2 does; None if it has all."""
    missing = [name for name in ("mask_token", "eos_token", "pad_token") if getattr(tokenizer, name) is None]
    if not missing:
        return None
    return f"its tokenizer has no {', '.join(missing)}, so it cannot be asked: wanted a tokenizer of finetuning"


def check_writable(relation: Relation, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise ValueError where a relation's question or one of its prompts is no text to the tokenizer."""
    for text in (relation.question, *relation.prompts):
        bare = text.replace("{name}", "")
        special = next((token for token in tokenizer.all_special_tokens if token in bare), None)
        unknown = special or find_unknown_character(tokenizer, bare)
        if unknown is not None:
            wrong = "a special token" if special else "not in the model's vocabulary"
            raise ValueError(f"relation {relation.name}: {text!r} contains {unknown!r}, which is {wrong}")


def check_lengths(trie: AnswerTrie, context: int) -> None:
    """Raise ValueError for the first candidate that is longer than what the model reads."""
    sizes = zip(trie.answers.tolist(), trie.lengths.tolist(), strict=True)
    for number, length in sorted((number, length) for number, length in sizes if number >= 0 and length >= context):
        raise ValueError(f"candidate {trie.texts[number][:40]!r} is {length} tokens long, the model reads {context}")
