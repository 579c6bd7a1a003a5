"""Build MiniGPT's two tokenizers, characters and byte-level BPE, from the pretraining text.

Both are plain `tokenizers` pipelines in a `PreTrainedTokenizerFast`, so a saved `tokenizer.json` loads by
`AutoTokenizer` with no code of ours. The special tokens have roles, and all other code asks for them by role:
`pad_token` fills rows, and the sentinel is both `mask_token` (it replaces a span and precedes what was taken out) and
`eos_token` (it ends an answer).
"""

import unicodedata
from collections.abc import Iterable, Iterator

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

# Characters that no biography has; one character each, so that a character tokenizer has them as tokens, too.
PAD_TOKEN = "□"
SENTINEL_TOKEN = "⁇"
# GPT-2's pattern (Radford et al. 2019), with marks as letters.
WORDS_WITH_MARKS = r"'s|'t|'re|'ve|'m|'ll|'d| ?[\p{L}\p{M}]+| ?\p{N}+| ?[^\s\p{L}\p{M}\p{N}]+|\s+(?!\S)|\s+"


def wrap(tokenizer: Tokenizer, max_length: int) -> PreTrainedTokenizerFast:
    """Give a `tokenizers` pipeline the special tokens' roles and padding on the left, as generation wants it."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD_TOKEN,
        mask_token=SENTINEL_TOKEN,
        eos_token=SENTINEL_TOKEN,
        padding_side="left",  # so that the last column is the newest token of every row
        # No token types: the model would refuse them.
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,  # decoding gives back exactly what was encoded, "Rome ." included
    )


def without_special_tokens(texts: Iterable[str]) -> Iterator[str]:
    """Yield texts; raise ValueError, with the line's number, where one already has a special token."""
    for number, text in enumerate(texts, start=1):
        for token in (PAD_TOKEN, SENTINEL_TOKEN):
            if token in text:
                raise ValueError(f"line {number}: {token!r} is a special token and may not occur in the text")
        yield text


def build_character_tokenizer(texts: Iterable[str], max_length: int) -> PreTrainedTokenizerFast:
    """Build a tokenizer of one token per character: pad, sentinel, then the newline and the texts' characters, sorted.

    Args:
        texts: the pretraining lines, without their line ends.
        max_length: the model's context, in characters.

    Raises:
        ValueError: a line has a special token.
    """
    characters = {"\n"}
    for text in without_special_tokens(texts):
        characters.update(text)
    vocabulary = {token: index for index, token in enumerate([PAD_TOKEN, SENTINEL_TOKEN, *sorted(characters)])}
    # Without an unknown token an unknown character raises; as a token it would become a wrong answer.
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")  # `.` would not match a newline
    tokenizer.decoder = decoders.Fuse()
    return wrap(tokenizer, max_length)


def need_marks(texts: Iterable[str]) -> bool:
    """Return whether texts are of a script that writes vowels as combining marks: more than one in 100 characters."""
    marks = characters = 0
    for text in texts:
        characters += len(text)
        if not text.isascii():
            marks += sum(unicodedata.category(character).startswith("M") for character in text)
    return 100 * marks > characters


def split_into_words(with_marks: bool) -> pre_tokenizers.PreTokenizer:
    """Return what splits a text into the pieces of which BPE's tokens are parts, with a space before the first.

    Args:
        with_marks: keep combining marks in their words. GPT-2's pattern, which ByteLevel has, splits before each mark,
            and so at nearly every vowel of Devanagari and its relatives.
    """
    if not with_marks:
        return pre_tokenizers.ByteLevel(add_prefix_space=True)
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(replacement=" ", prepend_scheme="always", split=False),  # the first space
            pre_tokenizers.Split(Regex(WORDS_WITH_MARKS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def build_bpe_tokenizer(texts: Iterable[str], vocab_size: int, max_length: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE (Sennrich et al. 2016; bytes as in Radford et al. 2019) on the texts.

    A space is put before every piece that has none, after a sentinel too, so that a name has the same tokens at the
    start of a line, in a question and as an answer. No byte is out of its vocabulary.

    Args:
        texts: the pretraining lines; gone through twice, and so made a list if they can be gone through only once.
        vocab_size: entries, the 256 bytes and the special tokens included.
        max_length: the model's context, in tokens.

    Raises:
        ValueError: a line has a special token, or `vocab_size` has no room for bytes and special tokens.
    """
    if vocab_size < 258:
        raise ValueError(
            f"a byte-level vocabulary needs at least 258 entries (256 bytes, 2 special), found {vocab_size}"
        )
    if iter(texts) is texts:
        texts = list(texts)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = split_into_words(need_marks(without_special_tokens(texts)))
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD_TOKEN, SENTINEL_TOKEN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),  # all 256 bytes, those that no text has included
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return wrap(tokenizer, max_length)
