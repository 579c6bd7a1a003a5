"""Every block of README.md and docs/*.md runs, or is named with the reason why not; `make readme` runs them."""

import re

import pytest
import yaml

from configuration.recipe import load_recipe
from tests.readme.__main__ import main, write_script
from tests.readme.pages import (
    ROOT,
    Block,
    Entry,
    PageError,
    commands_of,
    list_pages,
    match_entries,
    read_blocks,
    read_page,
    read_table,
)

MODULES = re.compile(r"python -m ((?:benchmarks|configuration|data_scripts|evaluation|hub|tests)[\w.]*)")
NEEDS_GPUS = "accelerate launch --config_file configuration/accelerate/"
# What does not run, by the page. A command that is left out needs its reason in blocks.yaml and its line here.
LEFT_OUT = {
    ("docs/training.md", f"{NEEDS_GPUS}one_gpu.yaml"),
    ("docs/training.md", f"{NEEDS_GPUS}several_gpus.yaml"),
    ("docs/training.md", f"{NEEDS_GPUS}several_gpus_sharded.yaml"),
}
# What runs where a program is installed.
NEEDED = {
    ("docs/neighbours.md", "lm_eval run"): "lm_eval",
    ("docs/publishing.md", "python space/app.py"): "gradio",
    ("docs/question_sets.md", "lm_eval run"): "lm_eval",
}


@pytest.fixture(scope="module")
def pages():
    """Every page with its table."""
    table = read_table(ROOT)
    return [read_page(name, table, ROOT) for name in list_pages()]


def test_every_block_runs_but_those_that_are_named_with_their_reasons(pages, tmp_path):
    for page in pages:
        script = write_script(page, tmp_path / page.path)
        assert all(f"--- {block.place}'" in script for block, _ in page.blocks)
    entries = [(page.path, entry) for page in pages for _, entry in page.blocks]
    assert {(path, command) for path, entry in entries for command in entry.not_run} == LEFT_OUT
    assert all(reason for _, entry in entries for reason in entry.not_run.values())
    assert {(path, command): name for path, entry in entries for command, name in entry.needs.items()} == NEEDED
    assert set(read_table(ROOT)) == {page.path for page in pages if page.blocks}


def test_sections_of_a_recipe_are_read_by_its_loader(pages, tmp_path):
    recipe = (ROOT / "tests" / "readme" / "recipe.yaml").read_text(encoding="utf-8")
    sections = [block for page in pages for block, _ in page.blocks if block.language == "yaml"]
    assert sections
    for number, block in enumerate(sections):
        path = tmp_path / f"{number}.yaml"
        path.write_text(recipe + block.text, encoding="utf-8")
        read = load_recipe(path, [])
        assert all(getattr(read, name) != getattr(load_recipe(ROOT / "tests/readme/recipe.yaml", []), name)
                   for name in yaml.safe_load(block.text)), block.place  # fmt: skip


def test_modules_and_extras_that_the_text_names_are_there():
    extras = (ROOT / "setup.cfg").read_text(encoding="utf-8").split("[options.extras_require]")[1]
    known = set(re.findall(r"^(\w+) =", extras.split("\n[")[0], flags=re.MULTILINE))
    for name in list_pages():
        text = (ROOT / name).read_text(encoding="utf-8")
        for module in MODULES.findall(text):
            path = ROOT / module.replace(".", "/")
            assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), f"{name}: {module}"
        for found in re.findall(r"(?:minigpt-lab|\.)\[([a-z,]+)\]", text):
            assert set(found.split(",")) <= known, f"{name}: {found}"


def blocks_of(*texts: str) -> list[Block]:
    """Return the blocks of a page of these paragraphs."""
    return read_blocks("page.md", "\n\n".join(texts) + "\n")


def test_output_belongs_to_the_block_before_it_and_other_blocks_need_a_language():
    (block,) = blocks_of("# Title", "```python\nprint(1)\n```", "prints", "```\n1\n```")
    assert (block.text, block.prints, block.place) == ("print(1)\n", "1\n", "page.md:4")
    with pytest.raises(PageError, match=r"page\.md:6: wanted one of bash, python, yaml, or output"):
        blocks_of("# Title", "and", "```\nminigpt ask\n```")


def test_a_block_without_an_entry_and_an_entry_without_a_block_are_refused():
    blocks = blocks_of("```bash\nmake one\n```", "```bash\nmake two\n```")
    with pytest.raises(PageError, match=r"page\.md:6: .* has no entry for this block: there is no further entry"):
        match_entries(blocks, [Entry("make one")])
    with pytest.raises(PageError, match="has an entry of no block: 'make three'"):
        match_entries(blocks, [Entry("make one"), Entry("make two"), Entry("make three")])


@pytest.mark.parametrize(
    "fields",
    [
        {"run": "(echo 'import modeling_minigpt'; cat \"$BLOCK\") | python -"},
        {"before": "python -c 'from transformers import AutoModel'"},
        {"replace": {"load()": "import torch; load()"}},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_an_entry_that_adds_an_import_which_the_page_lacks_is_refused(fields, tmp_path):
    (tmp_path / "page.md").write_text("```python\nload()\n```\n", encoding="utf-8")
    with pytest.raises(PageError, match=r"page\.md:2: .* adds '(from \w+ )?import \w+', which the page lacks"):
        read_page("page.md", {"page.md": {"blocks": [{"block": "load()", **fields}]}}, tmp_path)
    imports = "import modeling_minigpt\nimport torch\nfrom transformers import AutoModel"
    (tmp_path / "page.md").write_text(f"`{imports}`\n\n```python\nload()\n```\n", encoding="utf-8")
    assert read_page("page.md", {"page.md": {"blocks": [{"block": "load()", **fields}]}}, tmp_path).blocks


def test_names_are_replaced_commands_left_out_and_what_is_left_is_refused():
    (block,) = blocks_of("```bash\ntrain RECIPE --set a=RUN/b \\\n    --set c=NEW_RUN   # short\nlaunch RECIPE\n```")
    names = {"RECIPE": "$RECIPE", "RUN": "$RUN", "NEW_RUN": "runs/new"}
    assert commands_of(block, names, Entry("train")) == "train $RECIPE --set a=$RUN/b --set c=runs/new\nlaunch $RECIPE"
    entry = Entry("train", replace={"train RECIPE": "train small"}, not_run={"launch": "needs a GPU"})
    assert commands_of(block, names, entry) == "train small --set a=$RUN/b --set c=runs/new"
    assert "launch" not in commands_of(block, names, Entry("train", needs={"launch": "no-such-program-here"}))
    assert "launch" in commands_of(block, names, Entry("train", needs={"launch": "bash"}))
    for fault, message in (
        (Entry("train", replace={"test": "x"}), "replaces what is not there: 'test'"),
        (Entry("train", not_run={"submit": "no"}), "leaves out a command that is not there: 'submit'"),
        (Entry("train", needs={"submit": "no"}), "leaves out a command that is not there: 'submit'"),
    ):
        with pytest.raises(PageError, match=message):
            commands_of(block, names, fault)
    with pytest.raises(PageError, match="does not say what 'NEW_RUN' is"):
        commands_of(block, {"RECIPE": "$RECIPE", "RUN": "$RUN"}, Entry("train"))


@pytest.mark.slow
@pytest.mark.readme
def test_every_page_runs_as_it_says():
    assert main([]) == 0
