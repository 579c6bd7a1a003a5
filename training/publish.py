"""Publish a finished run on the Hub: one commit with all that other people's code needs.

    python -m training.publish RUN_FOLDER USER/NAME --dry-run FOLDER     # write exactly what would be pushed
    python -m training.publish RUN_FOLDER USER/NAME --private

The commit holds the finetuned model (safetensors, config, tokenizer, its code, candidates and calibration), the run's
results and plots, and a model card. A push that was interrupted can be repeated; the run's folder is only read.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

import httpx
from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id

from training.model_card import model_card
from training.run_folder import RunFolder, write_json

PICTURES = ("losses.png", "trust.png")
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


class PublishError(RuntimeError):
    """A run that cannot be published; the message is one line for the user."""


def write_release(run: Path, repo_id: str, target: Path) -> None:
    """Write what is published into a folder that is not there yet, or empty.

    Raises:
        PublishError: no finished and scored run there, a pickle among its files, or something in the folder.
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
            raise PublishError(f"{run}: {lacking} ({path.name} not found)")
    if pickles := [path.name for path in model.rglob("*") if path.suffix in PICKLES]:
        raise PublishError(f"{model}: {pickles[0]} may hold code; only safetensors are published")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise PublishError(f"{target}: is not empty; choose another folder")
    shutil.copytree(model, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    pictures = [name for name in PICTURES if (run / name).is_file()]
    for name in (*pictures, folder.results.name):
        shutil.copy(run / name, target / name)
    results, recipe = json.loads(folder.results.read_text()), json.loads(folder.recipe.read_text())
    write_json(target / folder.recipe.name, without_paths(recipe))
    (target / "README.md").write_text(model_card(results, recipe, repo_id, pictures), encoding="utf-8")


def without_paths(recipe: dict) -> dict:
    """Return a recipe that tells nothing of the machine it ran on: folders are cut to their names."""
    data = {**recipe["data"], "path": recipe["data"]["path"] and Path(recipe["data"]["path"]).name}
    return {**recipe, "output": Path(recipe["output"]).name, "data": data}


def push(folder: Path, repo_id: str, private: bool) -> str:
    """Push a folder as one commit, making the repository where there is none; return the commit's address.

    Raises:
        PublishError: no token, or one that may not write there; the Hub refuses or cannot be reached.
    """
    if get_token() is None:
        raise PublishError("no token; log in by `hf auth login` or set HF_TOKEN")
    try:
        api = HfApi()
        api.create_repo(repo_id, private=private, exist_ok=True)
        return api.upload_folder(
            repo_id=repo_id, folder_path=folder, commit_message="Publish a MiniGPT with its calibration and results"
        ).commit_url
    except HfHubHTTPError as error:
        status = error.response.status_code
        reason = {401: "the token is missing, wrong or expired", 403: "the token may not write there"}.get(status)
        raise PublishError(f"{repo_id}: {reason or ' '.join(str(error).split())[:200]} (status {status})") from error
    except (httpx.HTTPError, OSError) as error:
        raise PublishError(f"{repo_id}: the Hub cannot be reached: {' '.join(str(error).split())[:200]}") from error


def publish(run: Path, repo_id: str, private: bool = False, dry_run: Path | None = None) -> str:
    """Publish a run, or write what would be published to the folder `dry_run`; return what was done.

    Raises:
        PublishError: as `write_release` and `push`, or a name that the Hub does not take.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise PublishError(f"{repo_id!r} is no repository's name: {' '.join(str(error).split())[:200]}") from error
    if repo_id.count("/") != 1:
        raise PublishError(f"{repo_id!r} is no repository's name; wanted USER/NAME")
    if dry_run is not None:
        write_release(run, repo_id, dry_run)
        return f"{dry_run}: what would be pushed to {repo_id}"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "release"
        write_release(run, repo_id, folder)
        return push(folder, repo_id, private)


def main(argv: list[str] | None = None) -> int:
    """Publish; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the output folder of a finished run")
    parser.add_argument("repo_id", metavar="USER/NAME", help="the repository; it is made where it is missing")
    parser.add_argument("--private", action="store_true", help="make it a private one")
    parser.add_argument("--dry-run", type=Path, metavar="FOLDER", help="push nothing; write what would be pushed here")
    arguments = parser.parse_args(argv)
    try:
        print(publish(arguments.run, arguments.repo_id, arguments.private, arguments.dry_run))
    except PublishError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
