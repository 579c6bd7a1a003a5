"""The blocks of README.md and docs/*.md, and what runs in their place: `blocks.yaml`, a table for each page.

A page's block has an entry in its table, in page order:

- `block`: how the block begins;
- `replace`: what is printed, and what runs in its place: names that a reader replaces, and sizes that take minutes;
- `not_run`: commands of the block, by their beginnings, that do not run, each with the reason;
- `needs`: commands that run only where a program is installed;
- `before`, `after`: shell commands that run before the block, and that must succeed after it;
- `run`: shell commands that run in place of the block, whose text is in the file `$BLOCK`.

What runs before a block or in its place imports nothing that the page lacks: a reader has the page alone.

`names` of a page are replaced in all of its blocks. Shell variables in the table are those of `examples.py`.
"""

import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from configuration.errors import UserError

ROOT = Path(__file__).parents[2]
README = "README.md"
TABLE = "tests/readme/blocks.yaml"
LANGUAGES = ("bash", "python", "yaml")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
# What a reader has to replace: names in capitals, and dots.
PLACEHOLDERS = re.compile(r"(?<![\w$])(RECIPE|FOLDER|RUN|RUN_FOLDER|NEW_RUN|MODEL|FILE|JOB|USER/NAME)(?!\w)|…")

IMPORTS = re.compile(r"(?:\bfrom [\w.]+ )?\bimport [\w.*]+(?:, \w+)*")


class PageError(UserError):
    """A page and its table that do not fit together."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        page: its path from the root.
        line: of the page, that of the block's first line.
        prints: what the page says that it prints, if it does.
    """

    page: str
    line: int
    language: str
    text: str
    prints: str | None = None

    @property
    def place(self) -> str:
        """Page and line, as an error names them."""
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Entry:
    """How a block runs; see the module."""

    block: str
    replace: dict[str, str] = field(default_factory=dict)
    not_run: dict[str, str] = field(default_factory=dict)
    needs: dict[str, str] = field(default_factory=dict)
    before: str = ""
    after: str = ""
    run: str = ""


@dataclass(frozen=True)
class Page:
    """A page: its path from the root, the names that are replaced in all of it, and its blocks with their entries."""

    path: str
    names: dict[str, str]
    blocks: list[tuple[Block, Entry]]


def list_pages() -> list[str]:
    """Return the pages whose blocks run, README first."""
    return [README, *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]


def read_blocks(page: str, text: str) -> list[Block]:
    """Return the blocks of a page's text, each with what it prints.

    A block of output has no language and follows a line "prints".

    Raises:
        PageError: a block without a language is no output, or a language is none of `LANGUAGES`.
    """
    blocks: list[Block] = []
    end = 0
    for match in FENCE.finditer(text):
        block = Block(page, text.count("\n", 0, match.start()) + 2, match[1], match[2])
        between = text[end : match.start()].strip()
        if block.language in LANGUAGES:
            blocks.append(block)
        elif block.language or between != "prints" or not blocks:
            raise PageError(f"{block.place}: wanted one of {', '.join(LANGUAGES)}, or output after a line “prints”")
        else:
            last = blocks.pop()
            blocks.append(Block(last.page, last.line, last.language, last.text, prints=block.text))
        end = match.end()
    return blocks


def match_entries(blocks: Sequence[Block], entries: Sequence[Entry]) -> list[tuple[Block, Entry]]:
    """Return each block with its entry.

    Raises:
        PageError: a block has no entry, or an entry no block.
    """
    pairs = []
    remaining = list(entries)
    for block in blocks:
        if not remaining or not block.text.startswith(remaining[0].block):
            expected = f"the next entry begins {remaining[0].block!r}" if remaining else "there is no further entry"
            raise PageError(f"{block.place}: {TABLE} has no entry for this block: {expected}")
        pairs.append((block, remaining.pop(0)))
    if remaining:
        raise PageError(f"{blocks[0].page}: {TABLE} has an entry of no block: {remaining[0].block!r}")
    return pairs


def check_imports(block: Block, entry: Entry, text: str) -> None:
    """Check that what runs before a block, or in its place, imports only what its page's text does.

    Raises:
        PageError: it imports something else, without which the block may fail for a reader.
    """
    for added in (entry.before, entry.run, *entry.replace.values()):
        for statement in IMPORTS.findall(added):
            if statement not in text:
                raise PageError(f"{block.place}: {TABLE} adds {statement!r}, which the page lacks")


def split_commands(text: str) -> list[str]:
    """Return the commands of a bash block, each with its continued lines and without comments."""
    commands = []
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        words = shlex.split(line, comments=True)
        if words:
            commands.append(re.sub(r"\s+#\s.*$", "", line).rstrip())
    return commands


def take_out(commands: Sequence[str], beginnings: Mapping[str, str], place: str) -> list[str]:
    """Return the commands but those with one of the beginnings.

    Raises:
        PageError: a beginning is that of no command.
    """
    for beginning in beginnings:
        if not any(command.startswith(beginning) for command in commands):
            raise PageError(f"{place}: {TABLE} leaves out a command that is not there: {beginning!r}")
    return [command for command in commands if not command.startswith(tuple(beginnings))]


def replace_names(text: str, names: Mapping[str, str], replace: Mapping[str, str], place: str) -> str:
    """Return a block's text with what runs in place of what is printed.

    Raises:
        PageError: what is to be replaced is not there, or something that a reader has to replace is left.
    """
    for printed, run in replace.items():
        if printed not in text:
            raise PageError(f"{place}: {TABLE} replaces what is not there: {printed!r}")
        text = text.replace(printed, run)
    for name, value in names.items():
        text = re.sub(rf"(?<![\w$]){re.escape(name)}(?!\w)", lambda match, value=value: value, text)
    if left := PLACEHOLDERS.search(text):
        raise PageError(f"{place}: {TABLE} does not say what {left[0]!r} is")
    return text


def is_installed(program: str) -> bool:
    """Return whether a program is on the path or beside this Python."""
    return shutil.which(program, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}") is not None


def commands_of(block: Block, names: Mapping[str, str], entry: Entry) -> str:
    """Return the code that runs for a block, in its language."""
    if entry.run:
        return block.text
    if block.language != "bash":
        return replace_names(block.text, names, entry.replace, block.place)
    commands = take_out(split_commands(block.text), entry.not_run, block.place)
    take_out(commands, entry.needs, block.place)  # checks that they are there
    lacking = tuple(command for command, program in entry.needs.items() if not is_installed(program))
    lines = replace_names("\n".join(commands), names, entry.replace, block.place).split("\n")
    return "\n".join(line for line, command in zip(lines, commands, strict=True) if not command.startswith(lacking))


def read_table(root: Path) -> dict[str, dict]:
    """Return the table of each page."""
    return yaml.safe_load((root / TABLE).read_text(encoding="utf-8"))


def read_page(path: str, tables: Mapping[str, dict], root: Path) -> Page:
    """Read a page and what the table says of it.

    Raises:
        PageError: they do not fit together.
    """
    table = tables.get(path, {"blocks": []})
    text = (root / path).read_text(encoding="utf-8")
    pairs = match_entries(read_blocks(path, text), [Entry(**entry) for entry in table["blocks"]])
    for block, entry in pairs:
        check_imports(block, entry, text)
    return Page(path, table.get("names", {}), pairs)
