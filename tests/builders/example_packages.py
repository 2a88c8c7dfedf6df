"""Packages under examples/, installed as anybody's are."""

import os
import shutil
import subprocess
import sys

from tests.builders.project_files import EXAMPLES


def install(name, folder):
    """A copy of an example's source in a folder, and the environment in which it is installed."""
    shutil.copytree(EXAMPLES / name, folder / "source")  # building leaves files beside the source
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*command, "--target", str(folder / "installed"), str(folder / "source")], check=True)
    path = os.pathsep.join([str(folder / "installed"), os.environ.get("PYTHONPATH", "")])
    return folder / "source", {**os.environ, "PYTHONPATH": path, "PL_DISABLE_FORK": "1"}


def ran(command, folder, environment):
    """What a module of Python says that must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
