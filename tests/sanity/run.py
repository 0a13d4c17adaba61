"""Run `ansible-test sanity` without a container engine: `run.py COLLECTION [ARGUMENT...]`.

COLLECTION is a copy of the collection at `.../ansible_collections/bare/containers`, the only layout that
ansible-test accepts; the arguments go to ansible-test. For each of its tests it makes a virtual environment,
and to put pip there it downloads get-pip from a host of its own. Here pip comes from the package index like
everything else: its wheel, and a stand-in of get-pip, are put where ansible-test keeps what it downloads.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from ansible_test._internal.python_requirements import get_venv_packages
from ansible_test._util.target.common.constants import CONTROLLER_PYTHON_VERSIONS, REMOTE_ONLY_PYTHON_VERSIONS

CACHE = Path.home() / ".ansible/test/cache"

GET_PIP = '''\
"""Stands in for get-pip: installs pip from the wheel beside this file. Written by bare.containers."""
import pathlib
import runpy
import sys

sys.path.insert(0, str(pathlib.Path(__file__).with_name("{wheel}")))
no_such = ("--no-setuptools", "--no-wheel")
sys.argv = ["pip", "install"] + [word for word in sys.argv[1:] if word not in no_such]
runpy.run_module("pip", run_name="__main__", alter_sys=True)
'''


def pip_versions() -> set[str]:
    """The versions of pip that this ansible-test wants, one for all Pythons or several."""
    pythons = [*REMOTE_ONLY_PYTHON_VERSIONS, *CONTROLLER_PYTHON_VERSIONS]
    return {get_venv_packages(SimpleNamespace(version=python))["pip"] for python in pythons}


def provide_get_pip(version: str) -> None:
    """Put the stand-in into the cache of ansible-test, unless a get-pip of that version is there."""
    script = CACHE / f"get_pip_{version.replace('.', '_')}.py"
    if script.exists():
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    subprocess.run([*download, f"--dest={CACHE}", f"pip=={version}"], check=True)
    script.write_text(GET_PIP.format(wheel=f"pip-{version}-py3-none-any.whl"))


def search_path() -> str:
    """PATH with the interpreters of pyenv in place of its shims, which ansible-test cannot run."""
    here = [str(Path(sys.executable).parent)]
    path = [folder for folder in os.environ["PATH"].split(":") if not folder.endswith("/.pyenv/shims")]
    built = sorted(str(folder) for folder in Path.home().glob(".pyenv/versions/*/bin"))
    return ":".join([*here, *path, *built])


def main() -> int:
    collection, *arguments = sys.argv[1:]
    for version in pip_versions():
        provide_get_pip(version)
    command = ["ansible-test", "sanity", "--local", "--color", "no", *arguments]
    environment = {**os.environ, "PATH": search_path()}
    return subprocess.run(command, cwd=collection, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
