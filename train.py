"""Train and score a MiniGPT: pretrain on biographies, finetune on questions, answer "Where was NAME born?".

    python train.py show --config quickstart
    python train.py all --config quickstart
    python train.py prepare --config RECIPE --set data.path=USER/NAME --set prepare.folder=FOLDER
    python train.py all --config cs224n --set data.path=FOLDER --set output=runs/mine
    accelerate launch train.py pretrain --config RECIPE
    python train.py all --config RECIPE --push_to_hub USER/NAME
    python train.py evaluate --config RECIPE --set evaluate.model=runs/mine/finetune --set output=runs/scored
    python train.py sweep --config RECIPE --set data.validation_questions=300 --grid pretrain.steps=400,800 --seeds 0 1

Everything a run writes is in its output folder. The exit status is 2, after one line that says why, when the recipe,
the data or the folder cannot be used or training diverges or hangs; 1 when a run of a sweep has failed; and 75 after a
signal (SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGXCPU) whose run was saved and can be resumed.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 (any Python may run a checkout; an older one ends in a traceback below)
    found = f"{sys.version_info[0]}.{sys.version_info[1]}"
    hint = "activate the environment that `make` sets up (source .venv/bin/activate)"
    sys.stderr.write(f"error: found Python {found}, wanted 3.11 or newer; {hint}\n")
    sys.exit(2)

import argparse
import os

HELP = {
    "prepare": "write the corpus of people, documents and questions; the other commands do so, too, if there is none",
    "pretrain": "learn the biographies by span corruption",
    "finetune": "learn to answer, from the output folder's pretrained model, or finetune.start_from",
    "evaluate": "score the finetuned model, or evaluate.model, beside the baselines",
    "all": "pretrain, finetune, train the baseline without pretraining, evaluate",
    "sweep": "train once for each combination of some values and seeds, and compare on held-out training questions",
    "show": "print what a recipe would run: settings with their meanings, sizes, minutes, training rows",
}

AGAIN = "the same command continues"
WITHOUT_TRAINING = ("prepare", "show")
NEVER_PUBLISHED = (*WITHOUT_TRAINING, "sweep")
STOPPED = {"show": "stopped", "prepare": f"stopped; {AGAIN}", "sweep": f"stopped; {AGAIN}"}  # after Ctrl-C


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="train.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="{" + ",".join(HELP) + "}")
    for name, text in HELP.items():
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument(
            "--config",
            required=True,
            metavar="RECIPE",
            help="a recipe: its name in configuration/recipes/, or a YAML file",
        )
        command.add_argument(
            "--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE",
            help="override a recipe's value; may be repeated, the last one wins",
        )  # fmt: skip
        if name == "sweep":
            command.add_argument(
                "--grid", action="append", default=[], metavar="SECTION.KEY=VALUE,VALUE...",
                help="values of a key to try; with several --grid, every combination is run",
            )  # fmt: skip
            command.add_argument(
                "--seeds",
                type=int,
                nargs="+",
                metavar="SEED",
                help="seeds of each combination; by default the recipe's",
            )
            command.add_argument("--part", metavar="I/N", help="run every N-th point from the I-th, for a job array")
        if name in NEVER_PUBLISHED:
            continue
        command.add_argument(
            "--resume", action="store_true", help="continue from the output folder's latest valid checkpoint"
        )
        command.add_argument("--push_to_hub", metavar="USER/NAME", help="publish the scored model in this repository")
        command.add_argument("--private", action="store_true", help="make the repository private if it is new")
        command.add_argument("--push_checkpoints", action="store_true", help="push intermediate checkpoints too")
        command.add_argument("--license", help="licence to publish the model under; by default that of its data")
    arguments = parser.parse_args(argv)
    if arguments.command in NEVER_PUBLISHED:
        return arguments
    if arguments.push_to_hub is None and (arguments.private or arguments.push_checkpoints or arguments.license):
        parser.error("--private, --push_checkpoints and --license need --push_to_hub USER/NAME")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Run a command; return the exit status."""
    arguments = parse_arguments(argv)
    if sys.flags.safe_path:  # PYTHONSAFEPATH keeps the script's folder, where our packages are, out of the path
        sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    # Imported here, so that --help and a mistyped option answer at once.
    from configuration.errors import UserError, run_main

    def command() -> int | None:
        try:
            from configuration.recipe_names import find_recipe

            path = find_recipe(arguments.config)  # before torch is imported: a misspelt name is answered at once
            from configuration.recipe import load_recipe
            from hub.publish_model import HubTarget
            from training.barrier_spin import spin_on_free_cores
            from training.console import configure_logging
            from training.interruption import handle_signals
            from training.preparation import prepare_corpus
            from training.preview import show
            from training.runner import run_command
            from training.sweep import sweep
        except ModuleNotFoundError as error:
            raise UserError(
                f"the Python module {error.name} is not installed; activate the environment that `make` sets up "
                "(source .venv/bin/activate), or pip install -e '.[train]'"
            ) from error

        configure_logging()
        if arguments.command == "sweep":
            with handle_signals(ends_process=argv is None, remedy=AGAIN), spin_on_free_cores():
                return sweep(path, arguments.overrides, arguments.grid, arguments.seeds, arguments.part)
        recipe = load_recipe(path, arguments.overrides)
        if arguments.command == "show":
            show(recipe)
            return None
        if arguments.command == "prepare":
            with handle_signals(ends_process=argv is None):
                prepare_corpus(recipe)
            return None
        target = (arguments.push_to_hub, arguments.private, arguments.push_checkpoints, arguments.license)
        hub = HubTarget(*target) if arguments.push_to_hub else None
        with handle_signals(ends_process=argv is None), spin_on_free_cores():
            run_command(recipe, arguments.command, arguments.resume, hub)
        return None

    return run_main(
        command, STOPPED.get(arguments.command, "stopped; continue from the latest checkpoint with --resume")
    )


if __name__ == "__main__":
    sys.exit(main())
