"""Publish a finished run on the Hub: one commit with all that other people's code needs.

    python -m hub.publish_model RUN_FOLDER USER/NAME --dry-run FOLDER     # write exactly what would be pushed
    python -m hub.publish_model RUN_FOLDER USER/NAME --private --license cc-by-sa-4.0

The commit has the finetuned model (safetensors, config, tokenizer, its code, candidates and calibration), the run's
results and plots, and a model card. A push that was interrupted can be repeated; the run's folder is only read.
`train.py … --push_to_hub USER/NAME` does the same at the end of a run.
"""

import argparse
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import ModelCard
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.dynamic_module_utils import get_relative_import_files

from artifacts.files import sha256
from artifacts.run_folder import RunFolder, read_json
from artifacts.safe_loading import OWN_CODE, iter_strings, real_path
from configuration.errors import run_main
from hub.card_data import find_dataset_id
from hub.licenses import check_license
from hub.local_paths import remove_paths
from hub.model_card import model_card
from hub.push import PushError, as_push_error, check_repo_id, open_repository, push_folder, warn, write_file_list

PICTURES = (
    "pretraining.png",
    "losses.png",
    "trust.png",
    "trust.*.png",
)  # patterns; the last one's are of further relations
MODEL_FILES = (
    "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "facts.json", "birthplaces.json", "confidence.json", "names.txt",
    "training.json", "trained_on.json",
)  # fmt: skip
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")  # refused, since they may be meant as the model's weights
MARKER = "modeling_minigpt.py"  # which every push of a model leaves
CHECKPOINTS = "checkpoints"  # the branch for intermediate models


def write_release(run: Path, repo_id: str, target: Path, license: str | None = None) -> None:
    """Write what is published into a folder that is not there yet, or empty.

    Args:
        run: the folder of a run.
        repo_id: USER/NAME.
        target: the folder to write.
        license: what the model is published under; by default the licence of its data, where the run knows that.

    Raises:
        PushError: no finished and scored run there, a pickle or a link out of the run among its files, something in
            the folder, or a licence that the Hub does not know.
    """
    with as_push_error(f"{run}: cannot be published"):
        if license is not None:
            check_license(license)
        folder = RunFolder(run)
        check_complete(folder)
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise PushError(f"{target}: is not empty; choose another folder")
        pictures = find_pictures(run)
        target.mkdir(parents=True, exist_ok=True)
        copy_model(folder.stage("finetune"), target)
        for name in (*pictures, folder.results.name, folder.recipe.name):
            shutil.copyfile(run / name, target / name)
        recipe = read_json(folder.recipe)
        dataset = find_dataset_id(read_json(folder.results).get("source", {}))
        # These are folders even where they have the form of an id on the Hub, as `runs/mine`; a data set's id is none.
        remove_paths(target, run, {recipe["output"], recipe["data"]["path"]} - {None, dataset})
        results = read_json(target / folder.results.name)
        if license is None:
            license = find_license(results, repo_id)
        tasks = read_json(target / "config.json").get("custom_pipelines") or ()
        card = model_card(results, recipe, repo_id, pictures, license, tasks)
        # Read as the Hub reads it: metadata that are no YAML mapping are refused here. The Hub checks them, too.
        ModelCard(card).save(target / "README.md")
        write_file_list(target)


def find_license(results: dict, repo_id: str) -> str | None:
    """Return the licence of the data that a run was trained on; None, with a warning, where the run has none."""
    license = results.get("source", {}).get("license")
    if license is None:
        warn(f"{repo_id}: the licence of the data is not known, so the card has none; name it by --license")
    return license


def find_pictures(run: Path) -> list[str]:
    """Return the names of a run's plots, in the order of `PICTURES`."""
    return [path.name for pattern in PICTURES for path in sorted(run.glob(pattern))]


def check_complete(folder: RunFolder) -> None:
    """Raise PushError unless a run is finished and scored, and its files are its own; see `write_release`."""
    model = folder.stage("finetune")
    for path, lacking in (
        (model / "config.json", "no finetuned model"),
        (model / "model.safetensors", "no safetensors weights"),
        (folder.results, "no results; run `train.py evaluate` first"),
        (folder.recipe, "no recipe"),
    ):
        if not path.is_file():
            raise PushError(f"{folder.path}: {lacking} ({path.name} not found)")
    weights = sha256(model / "model.safetensors")
    if read_json(folder.results).get("weights", weights) != weights:  # not recorded before there was such a check
        raise PushError(f"{folder.results}: is of other weights than {model}; run `train.py evaluate` first")
    if pickles := [path.name for path in model.rglob("*") if path.suffix.lower() in PICKLES]:
        raise PushError(f"{model}: {pickles[0]} may hold code; only safetensors are published")
    root = real_path(folder.path)
    for path in (model, *(folder.path / name for name in find_pictures(folder.path)), folder.results, folder.recipe):
        if not real_path(path).is_relative_to(root):
            raise PushError(f"{path}: links to {real_path(path)}, which is outside the run")
    for path in sorted(model.rglob("*")):
        if path.is_symlink() and not real_path(path).is_relative_to(real_path(model)):
            raise PushError(f"{path}: links to {real_path(path)}, which is outside the folder")


def copy_model(model: Path, target: Path) -> None:
    """Copy a finished model's own files; warn of everything else in its folder, which may be anything."""
    names = {*MODEL_FILES, *code_files(model)}
    for name in sorted(names):
        if (model / name).is_file():
            # The content alone: the copy gets the mode of any new file, not that of the original.
            shutil.copyfile(model / name, target / name)
    if others := sorted(set(os.listdir(model)) - {*names, "__pycache__"}):
        warn(f"{model}: not published, since it is no part of the model: {', '.join(others)}")


def code_files(model: Path) -> set[str]:
    """Return the names of the modules that a model's config names, and of those that they import."""
    found = set()
    for key, value in iter_strings(read_json(model / "config.json")):
        module = model / f"{value.partition('.')[0]}.py"
        if key in ("auto_map", "impl") and OWN_CODE.fullmatch(value) and module.is_file():
            found |= {module.name, *(Path(path).name for path in get_relative_import_files(module))}
    return found


@dataclass(frozen=True)
class HubTarget:
    """Where on the Hub a run is published.

    Attributes:
        repo_id: USER/NAME.
        private: whether its repository has to be private; if not, a new one is what its owner's settings say.
        checkpoints: whether intermediate models are pushed too, to the branch `CHECKPOINTS`.
        license: what the model is published under; by default the licence of its data.
    """

    repo_id: str
    private: bool | None = None
    checkpoints: bool = False
    license: str | None = None

    def open(self) -> None:
        """Make the repository, or see that it may be pushed to; PushError as `open_repository` and `check_license`."""
        if self.license is not None:
            check_license(self.license)
        open_repository(self.repo_id, self.private, MARKER)

    def push_run(self, run: Path) -> str:
        """Push a finished run to the default branch; return the commit's address. PushError as `write_release` too."""
        with as_push_error(self.repo_id), tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "release"
            write_release(run, self.repo_id, folder, self.license)
            self.open()
            return push_folder(folder, self.repo_id, "Publish a MiniGPT with its calibration and results")

    def push_checkpoint(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, stage: str, step: int
    ) -> str:
        """Push an intermediate model to its branch, from where `revision=` loads it; return the commit's address.

        Raises:
            PushError: whatever went wrong.
        """
        with as_push_error(self.repo_id), tempfile.TemporaryDirectory() as temporary:
            model.save_pretrained(temporary)
            tokenizer.save_pretrained(temporary)
            remove_paths(Path(temporary), Path.cwd())
            return push_folder(Path(temporary), self.repo_id, f"{stage}, step {step}", branch=CHECKPOINTS)


def main(argv: list[str] | None = None) -> int:
    """Publish; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the output folder of a finished run")
    parser.add_argument("repo_id", metavar="USER/NAME", help="the repository; created if it does not exist")
    parser.add_argument("--private", action="store_true", help="create it private; else as its owner's settings say")
    parser.add_argument("--license", help="the model's licence, as the Hub names it; by default that of its data")
    parser.add_argument("--dry-run", type=Path, metavar="FOLDER", help="push nothing; write the files to this folder")
    arguments = parser.parse_args(argv)

    def command() -> None:
        if arguments.dry_run is None:
            target = HubTarget(arguments.repo_id, arguments.private, license=arguments.license)
            print(target.push_run(arguments.run))
        else:
            check_repo_id(arguments.repo_id)
            write_release(arguments.run, arguments.repo_id, arguments.dry_run, arguments.license)
            print(f"{arguments.dry_run}: what would be pushed to {arguments.repo_id}")

    return run_main(command)


if __name__ == "__main__":
    sys.exit(main())
