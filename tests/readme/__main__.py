"""Run README and docs as a newcomer would: every bash and Python block in order, in a fresh clone of the last commit.

    python -m tests.readme                          # all pages, some fifteen minutes
    python -m tests.readme docs/*.md                # all but README, which sets up an environment: ten minutes
    python -m tests.readme docs/serving.md --list   # only show what would run

What a page says a block prints (the block after "prints") must be what it printed. `blocks.yaml` says what runs in
place of names that a reader replaces and of sizes that take minutes, and what does not run, and why. With the Python
of `.venv-neighbours`, commands that need its libraries run, too.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from configuration.errors import run_main
from tests.loopback_hub import LoopbackHub
from tests.readme.examples import LEARN, environment_of, options, write_examples
from tests.readme.pages import README, ROOT, Page, commands_of, list_pages, read_page, read_table

PRELUDE = """\
set -eo pipefail
start() { "$@" & server=$!; trap 'kill $server' EXIT; }
wait_for() {
  for _ in $(seq 240); do
    if curl -sf --output /dev/null "$1"; then return; fi
    kill -0 $server && sleep 0.5
  done
  return 1
}
stop() { trap - EXIT; kill $server; wait $server || true; server=; }
"""


def write_script(page: Page, folder: Path) -> str:
    """Write a page's blocks as files of a folder, and return one shell script that runs them.

    In one shell, an environment that one block activates serves the next.
    """
    parts = [PRELUDE]
    folder.mkdir(parents=True)
    for number, (block, entry) in enumerate(page.blocks):
        code = commands_of(block, page.names, entry)
        file = folder / f"{number}.{block.language}"
        file.write_text(code, encoding="utf-8")
        command = entry.run or (code if block.language == "bash" else f"python - < {file}")
        if block.prints is not None:
            command = f"{{\n{command}\n}} > {folder / f'{number}.out'}"
        parts += [f"echo '--- {block.place}' >&2\nBLOCK={file}", entry.before, command, entry.after]
    return "\n".join(part.rstrip() for part in parts if part) + "\n"


def find_difference(page: Page, folder: Path) -> str | None:
    """Return what is wrong with the output of a page's blocks, if anything is."""
    for number, (block, _) in enumerate(page.blocks):
        if block.prints is None:
            continue
        found = (folder / f"{number}.out").read_text(encoding="utf-8")
        if found != block.prints:
            return f"{block.place} printed {found!r}, and the page says {block.prints!r}"
    return None


def cpu_seconds() -> float:
    """Return the CPU time of all processes that this one has waited for, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run_page(page: Page, folder: Path, clone: Path, environment: Mapping[str, str]) -> str | None:
    """Run a page's blocks in the clone; return what went wrong, if anything did."""
    script = write_script(page, folder)
    began = (time.monotonic(), cpu_seconds())
    status = subprocess.run(["bash", "-c", script], cwd=clone, env=environment).returncode
    seconds = time.monotonic() - began[0]
    print(f"=== {page.path}: {seconds:.0f} s, {cpu_seconds() - began[1]:.0f} s of CPU time", file=sys.stderr)
    return f"{page.path}: a block failed" if status else find_difference(page, folder)


def train_run(clone: Path, environment: Mapping[str, str]) -> str:
    """Train the run that pages ask for, and copy it to where README puts its own, unless that is there.

    Returns:
        its folder, from the clone.
    """
    run = "runs/small"
    train = f"python train.py all --config $RECIPE {options(LEARN)} --set output={run}"
    copy = f"test -d runs/quickstart || cp -r {run} runs/quickstart"
    subprocess.run(["bash", "-c", f"{train} && ({copy})"], cwd=clone, env=environment, check=True)
    return run


def run_all(pages: Sequence[Page], folder: Path, clone: Path) -> list[str]:
    """Run pages in the clone, with their files in a folder; return what went wrong, a line for each page."""
    hub = LoopbackHub()
    found = []
    environment: dict[str, str] = {}
    with hub.serve() as address:
        for page in pages:
            if page.path == README:
                found.append(run_page(page, folder / page.path, clone, os.environ))
                continue
            if not environment:
                environment = environment_of(clone, folder, address) | write_examples(folder, hub)
                environment["RUN"] = train_run(clone, environment)
            found.append(run_page(page, folder / page.path, clone, environment))
    return [fault for fault in found if fault]


def run_in_clone(names: Sequence[str]) -> int:
    """Clone the last commit, run pages there and report; return the exit status."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder, "clone")
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        table = read_table(clone)
        faults = run_all([read_page(name, table, clone) for name in names], Path(folder), clone)
    for fault in faults:
        print(fault, file=sys.stderr)
    if not faults:
        print(f"{len(names)} pages ran as they say")
    return 1 if faults else 0


def list_blocks(names: Sequence[str]) -> int:
    """Print what would run; return the exit status."""
    table = read_table(ROOT)
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            print(write_script(read_page(name, table, ROOT), Path(folder, name)).removeprefix(PRELUDE))
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the blocks; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", metavar="PAGE", help="README.md or docs/NAME.md (all)")
    parser.add_argument("--list", action="store_true", help="show what would run, and run nothing")
    arguments = parser.parse_args(argv)
    names = arguments.pages or list_pages()
    if unknown := set(names) - set(list_pages()):
        parser.error(f"unknown page {min(unknown)}; wanted some of {', '.join(list_pages())}")
    return run_main(lambda: list_blocks(names) if arguments.list else run_in_clone(names))


if __name__ == "__main__":
    sys.exit(main())
