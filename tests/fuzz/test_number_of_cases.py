"""How much the fuzz tests try."""

import re
from pathlib import Path


def test_there_are_two_thousand_cases():
    texts = [path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_fuzz_*.py")]
    numbers = [int(number) for text in texts for number in re.findall(r"^@cases\((\d+)\)$", text, re.MULTILINE)]
    assert sum(numbers) >= 2000
    assert len(numbers) == sum(len(re.findall(r"^@given\(", text, re.MULTILINE)) for text in texts)
