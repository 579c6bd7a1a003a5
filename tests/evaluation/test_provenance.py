"""Where results are from: the commit of the code, and the command."""

import subprocess

from evaluation.provenance import find_command, find_commit


def test_a_folder_that_is_no_checkout_has_no_commit(tmp_path):
    assert find_commit(tmp_path) is None


def test_a_commit_says_whether_files_differ_from_it(tmp_path):
    def git(*words):
        name = ["-c", "user.name=A", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *name, *words], check=True, capture_output=True)

    git("init")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-m", "a")
    commit = find_commit(tmp_path)
    assert len(commit) == 10
    (tmp_path / "a").write_text("2")
    assert find_commit(tmp_path) == f"{commit} and changes"


def test_the_command_can_be_pasted_into_a_shell():
    words = ["/home/ada/minigpt/train.py", "all", "--config", "quickstart", "--set", "output=runs/my run"]
    assert find_command(words) == "python train.py all --config quickstart --set 'output=runs/my run'"


def test_what_another_program_scores_has_no_command():
    assert find_command(["/usr/bin/pytest", "-q"]) is None
