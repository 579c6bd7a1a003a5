"""The two tokenizers: stable ids, special tokens by role, names that keep their tokens, and no byte out of reach."""

import pytest
from transformers import AutoTokenizer

from modeling_minigpt import build_bpe_tokenizer, build_character_tokenizer
from modeling_minigpt.tokenization_minigpt import PAD_TOKEN, SENTINEL_TOKEN

TEXTS = [
    "Ada Vell was born in Nork.",
    "Where was Ada Vell born?",
    "Bo Maar\tlived in Nork, then in Élan.",
]
UNSEEN = {
    "emoji": "party 🎉👩‍🚀 time",
    "greek": "Ἀθῆναι",
    "chinese": "北京市",
    "arabic": "بغداد",
    "combining-accents": "e\u0301lan",
    "controls": "a\x00b\x7f\tc\nd",
    "several-spaces": "a  b   c ",
}


@pytest.fixture
def build():
    """Build either tokenizer from texts, by name."""

    def make(kind, texts=TEXTS):
        if kind == "characters":
            return build_character_tokenizer(texts, max_length=32)
        return build_bpe_tokenizer(texts, vocab_size=290, max_length=32)

    return make


@pytest.fixture(params=["characters", "bpe"])
def tokenizer(request, build):
    """Each of the two tokenizers."""
    return build(request.param)


@pytest.fixture
def bpe(build):
    """The byte-level tokenizer."""
    return build("bpe")


def test_character_ids_are_pad_sentinel_then_sorted():
    tokenizer = build_character_tokenizer(["ba", "c é"], max_length=32)
    expected = [PAD_TOKEN, SENTINEL_TOKEN, "\n", " ", "a", "b", "c", "é"]
    assert tokenizer.convert_ids_to_tokens(range(len(tokenizer))) == expected


@pytest.mark.parametrize("text", [*TEXTS, "\n", " a  b ", f"{SENTINEL_TOKEN}Nork{SENTINEL_TOKEN}", ""])
def test_characters_round_trip(build, text):
    tokenizer = build("characters")
    ids = tokenizer(text).input_ids
    assert len(ids) == len(text)
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("reloaded", [False, True], ids=["built", "reloaded"])
def test_unknown_character_is_refused(build, tmp_path, reloaded):
    tokenizer = build("characters")
    if reloaded:
        tokenizer.save_pretrained(tmp_path)
        tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    with pytest.raises(Exception, match="UNK"):
        tokenizer("Ada Vell was born in Zürich")


def test_character_ids_do_not_depend_on_the_order_of_the_texts(build):
    assert build("characters").get_vocab() == build("characters", TEXTS[::-1]).get_vocab()


def test_special_tokens_have_roles(tokenizer):
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == (PAD_TOKEN, 0)
    assert (tokenizer.mask_token, tokenizer.mask_token_id) == (SENTINEL_TOKEN, 1)
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == (SENTINEL_TOKEN, 1)


def test_sentinel_is_one_token_anywhere(tokenizer):
    assert tokenizer(SENTINEL_TOKEN).input_ids == [tokenizer.mask_token_id]
    ids = tokenizer(f"Ada {SENTINEL_TOKEN} was born{SENTINEL_TOKEN}Vell{SENTINEL_TOKEN}").input_ids
    assert ids.count(tokenizer.mask_token_id) == 3
    assert ids[-1] == tokenizer.mask_token_id


def test_special_tokens_are_dropped_from_answers(tokenizer):
    ids = tokenizer(f"{PAD_TOKEN}Nork{SENTINEL_TOKEN}").input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == "Nork"


def test_ids_survive_saving(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    reloaded = AutoTokenizer.from_pretrained(tmp_path)
    text = f"Where was {SENTINEL_TOKEN} born?{SENTINEL_TOKEN}Ada Vell"
    assert reloaded(text).input_ids == tokenizer(text).input_ids
    assert reloaded.decode(reloaded(text).input_ids) == tokenizer.decode(tokenizer(text).input_ids)
    for setting in ("pad_token", "mask_token", "eos_token", "padding_side", "model_max_length"):
        assert getattr(reloaded, setting) == getattr(tokenizer, setting)
    assert reloaded.get_vocab() == tokenizer.get_vocab()


def test_saved_tokenizer_is_data_only(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer.json").is_file()
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} <= {".json", ".jinja"}
    assert "auto_map" not in (tmp_path / "tokenizer_config.json").read_text()


def test_padding_stands_on_the_left(tokenizer):
    batch = tokenizer(["Vell", "Ada Vell was born"], padding=True)
    short, long = batch.input_ids
    missing = len(long) - len(tokenizer("Vell").input_ids)
    assert missing > 0
    assert short == [tokenizer.pad_token_id] * missing + tokenizer("Vell").input_ids
    assert batch.attention_mask == [[0] * missing + [1] * (len(long) - missing), [1] * len(long)]


@pytest.mark.parametrize("kind", ["characters", "bpe"])
@pytest.mark.parametrize("token", [PAD_TOKEN, SENTINEL_TOKEN], ids=["pad", "sentinel"])
def test_text_with_a_special_token_is_refused_with_its_line(build, kind, token):
    with pytest.raises(ValueError, match=f"line 2: '{token}'"):
        build(kind, ["Ada Vell", f"Bo{token}Maar", f"{token}"])


@pytest.mark.parametrize("kind", ["characters", "bpe"])
def test_texts_may_be_read_only_once(build, kind):
    assert build(kind, iter(TEXTS)).get_vocab() == build(kind).get_vocab()


@pytest.mark.parametrize(
    "place",
    ["NAME was born in Nork.", "Where was NAME born?", "was born in SENNAME", "was SENNAMESEN"],
    ids=["line-start", "question", "after-sentinel", "between-sentinels"],
)
def test_bpe_gives_a_name_the_same_ids_everywhere(bpe, place):
    name = bpe(" Ada Vell").input_ids
    text = place.replace("SEN", SENTINEL_TOKEN).replace("NAME", "Ada Vell")
    ids = bpe(text).input_ids
    assert name in [ids[start : start + len(name)] for start in range(len(ids))]


@pytest.mark.parametrize("text", UNSEEN.values(), ids=UNSEEN.keys())
def test_bpe_round_trips_what_it_never_saw(bpe, text):
    assert bpe.decode(bpe(text).input_ids).removeprefix(" ") == text


def test_bpe_reaches_every_byte(bpe):
    for first in (0x00, 0x80, 0x800, 0xFF00, 0x1F600):
        text = "".join(map(chr, range(first, first + 0x80)))
        assert bpe.decode(bpe(text, verbose=False).input_ids).removeprefix(" ") == text


def test_bpe_learns_frequent_words(bpe):
    assert len(bpe) == 290
    assert len(bpe("Ada Vell was born").input_ids) < len("Ada Vell was born") / 2


def test_smallest_bpe_holds_bytes_and_special_tokens():
    assert len(build_bpe_tokenizer(TEXTS, vocab_size=258, max_length=32)) == 258
    with pytest.raises(ValueError, match=r"at least 258 .*found 257"):
        build_bpe_tokenizer(TEXTS, vocab_size=257, max_length=32)


def test_training_twice_gives_the_same_file(build, tmp_path):
    files = []
    for name in ("first", "second"):
        build("bpe").save_pretrained(tmp_path / name)
        files.append((tmp_path / name / "tokenizer.json").read_bytes())
    assert files[0] == files[1]
