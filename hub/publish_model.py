"""Publish a finished run on the Hub: one commit with all that other people's code needs.

    python -m hub.publish_model RUN_FOLDER USER/NAME --dry-run FOLDER     # write exactly what would be pushed
    python -m hub.publish_model RUN_FOLDER USER/NAME --private

The commit has the finetuned model (safetensors, config, tokenizer, its code, candidates and calibration), the run's
results and plots, and a model card. A push that was interrupted can be repeated; the run's folder is only read.
`train.py … --push_to_hub USER/NAME` does the same at the end of a run.
"""

import argparse
import json
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import ModelCard
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from artifacts.run_folder import RunFolder, write_json
from configuration.errors import run_main
from hub.model_card import model_card
from hub.push import PushError, check_repo_id, open_repository, push_folder

PICTURES = ("losses.png", "trust.png")
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
MARKER = "modeling_minigpt.py"  # which every push of a model leaves
CHECKPOINTS = "checkpoints"  # the branch for models under way


def write_release(run: Path, repo_id: str, target: Path) -> None:
    """Write what is published into a folder that is not there yet, or empty.

    Raises:
        PushError: no finished and scored run there, a pickle among its files, or something in the folder.
    """
    folder = RunFolder(run)
    model = folder.stage("finetune")
    for path, lacking in (
        (model / "config.json", "no finetuned model"),
        (model / "model.safetensors", "no safetensors weights"),
        (folder.results, "no results; run `train.py evaluate` first"),
        (folder.recipe, "no recipe"),
    ):
        if not path.is_file():
            raise PushError(f"{run}: {lacking} ({path.name} not found)")
    if pickles := [path.name for path in model.rglob("*") if path.suffix in PICKLES]:
        raise PushError(f"{model}: {pickles[0]} may hold code; only safetensors are published")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise PushError(f"{target}: is not empty; choose another folder")
    shutil.copytree(model, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    pictures = [name for name in PICTURES if (run / name).is_file()]
    for name in (*pictures, folder.results.name):
        shutil.copy(run / name, target / name)
    results = json.loads(folder.results.read_text())
    recipe = json.loads(folder.recipe.read_text())
    write_json(target / folder.recipe.name, without_paths(recipe))
    # Read as the Hub reads it: metadata that are no YAML mapping are refused here. `push_folder` asks the Hub, too.
    ModelCard(model_card(results, recipe, repo_id, pictures)).save(target / "README.md")


def without_paths(recipe: dict) -> dict:
    """Return a recipe without traces of the machine it ran on: folders are cut to their names."""
    data = {**recipe["data"], "path": recipe["data"]["path"] and Path(recipe["data"]["path"]).name}
    return {**recipe, "output": Path(recipe["output"]).name, "data": data}


@dataclass(frozen=True)
class HubTarget:
    """Where on the Hub a run is published.

    Attributes:
        repo_id: USER/NAME.
        private: whether a repository that is made for it is private.
        checkpoints: whether models under way are pushed too, to the branch `CHECKPOINTS`.
    """

    repo_id: str
    private: bool = False
    checkpoints: bool = False

    def open(self) -> None:
        """Make the repository, or see that it may be pushed to; PushError as `open_repository`."""
        open_repository(self.repo_id, self.private, MARKER)

    def push_run(self, run: Path) -> str:
        """Push a finished run to the default branch; return the commit's address. PushError as `write_release` too."""
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "release"
            write_release(run, self.repo_id, folder)
            self.open()
            return push_folder(folder, self.repo_id, "Publish a MiniGPT with its calibration and results")

    def push_checkpoint(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, stage: str, step: int
    ) -> str:
        """Push a model under way to its branch, from where `revision=` loads it; return the commit's address."""
        with tempfile.TemporaryDirectory() as temporary:
            model.save_pretrained(temporary)
            tokenizer.save_pretrained(temporary)
            return push_folder(Path(temporary), self.repo_id, f"{stage}, step {step}", branch=CHECKPOINTS)


def main(argv: list[str] | None = None) -> int:
    """Publish; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the output folder of a finished run")
    parser.add_argument("repo_id", metavar="USER/NAME", help="the repository; it is made where it is missing")
    parser.add_argument("--private", action="store_true", help="make it a private one")
    parser.add_argument("--dry-run", type=Path, metavar="FOLDER", help="push nothing; write what would be pushed here")
    arguments = parser.parse_args(argv)

    def command() -> None:
        if arguments.dry_run is None:
            print(HubTarget(arguments.repo_id, arguments.private).push_run(arguments.run))
        else:
            check_repo_id(arguments.repo_id)
            write_release(arguments.run, arguments.repo_id, arguments.dry_run)
            print(f"{arguments.dry_run}: what would be pushed to {arguments.repo_id}")

    return run_main(command)


if __name__ == "__main__":
    sys.exit(main())
