"""Run the README as a newcomer would: every bash and Python block in order, in a fresh clone of the last commit.

    python -m tests.run_readme              # some five minutes: it sets up an environment and trains the quickstart
    python -m tests.run_readme --list       # only show what would be run

What the README says a Python block prints (the block after "prints") must be what it printed.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def read_blocks(text: str) -> list[tuple[str, str, str | None]]:
    """Return (language, code, expected output or None) of every bash and Python block."""
    found = []
    for match in re.finditer(r"```(bash|python)\n(.*?)```(\n\nprints\n\n```\n(.*?)```)?", text, flags=re.DOTALL):
        found.append((match[1], match[2], match[4]))
    return found


def write_script(blocks: list[tuple[str, str, str | None]]) -> str:
    """Write one shell script of all blocks, so that an environment that one activates serves the next."""
    parts = ["set -eo pipefail"]
    for number, (language, code, _) in enumerate(blocks):
        command = code if language == "bash" else f"python - > block-{number}.out <<'PYTHON'\n{code}PYTHON\n"
        parts.append(f"echo '--- block {number + 1}' >&2\n{command}")
    return "\n".join(parts)


def main() -> int:
    """Run the blocks; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="show the script and run nothing")
    arguments = parser.parse_args()
    blocks = read_blocks((ROOT / "README.md").read_text(encoding="utf-8"))
    script = write_script(blocks)
    if arguments.list:
        print(script)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        if subprocess.run(["bash", "-c", script], cwd=clone).returncode:
            print("a block failed", file=sys.stderr)
            return 1
        for number, (_, _, expected) in enumerate(blocks):
            if expected is not None and (clone / f"block-{number}.out").read_text() != expected:
                print(f"block {number + 1} printed something else than the README says", file=sys.stderr)
                return 1
    print(f"{len(blocks)} blocks ran as the README says")
    return 0


if __name__ == "__main__":
    sys.exit(main())
