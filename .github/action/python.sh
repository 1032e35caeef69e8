# shellcheck shell=bash
# The light core in an environment of its own, without torch. Sourced by run.sh.

# Arguments: the repository, a file to write. Prints the environment's name, and whether this Python's own pip can
# install into it. The sources run from where they are, so that no build can be stale; only what they need is installed.
DESCRIBE='
import hashlib, platform, re, sys, tomllib
from importlib import metadata
from pathlib import Path

root = Path(sys.argv[1])
project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
requirements = "\n".join(project["dependencies"]) + "\n"
Path(sys.argv[2]).write_text(requirements)
version = re.search(r"__version__ = \"([\w.+-]+)\"", (root / "checker/__init__.py").read_text())[1]
pins = (root / "constraints.txt").read_text()
digest = hashlib.sha256("\0".join([requirements, pins, sys.base_prefix, platform.machine()]).encode()).hexdigest()
print(f"{version}-{platform.python_version()}-{digest[:12]}")
try:
    pip = tuple(map(int, metadata.version("pip").split(".")[:2]))
except (metadata.PackageNotFoundError, ValueError):
    pip = (0, 0)
print("fast" if pip >= (22, 3) else "whole")
'
PIP_OPTIONS=(--quiet --disable-pip-version-check --no-input --no-compile --only-binary ':all:')

prepare_python() {
    local described
    find_python
    described=$("$python" -I -c "$DESCRIBE" "$root" "$work/requirements.txt") ||
        fail 3 "runtime python: $python cannot read the sources in $root"
    environments=$(environments_folder)
    environment=$environments/${described%%$'\n'*}
    [[ -x $environment/bin/python ]] || make_environment "${described##*$'\n'}"
    unset PYTHONPATH PYTHONHOME
    tool=("$environment/bin/python" "$root/entrypoint.py")
}

find_python() { # sets python: the first that is new enough
    local candidate found=
    for candidate in python3 python python3.14 python3.13 python3.12 python3.11; do
        command -v "$candidate" >/dev/null || continue
        if "$candidate" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            python=$candidate
            return
        fi
        [[ -n $found ]] || found=$("$candidate" --version 2>&1 || true)
    done
    fail 3 "runtime python needs Python 3.11 or newer, and this runner has ${found:-none}; run actions/setup-python before this step, or set runtime to docker"
}

environments_folder() { # where they outlive the job, if that can be written
    local base=${RUNNER_TOOL_CACHE:-$temp}/quant-verify
    if ! mkdir -p "$base" 2>/dev/null || [[ ! -w $base ]]; then
        base=$temp/quant-verify
        mkdir -p "$base"
    fi
    printf '%s' "$base"
}

make_environment() { # fast|whole: beside its place and then moved there, so that nobody meets half of one
    local fresh
    fresh=$(mktemp -d "$environments/.new.XXXXXX")
    group "quant-verify: installing what it needs, without torch"
    fill_environment "$fresh" "$1"
    end_group
    if [[ $status != 0 ]]; then
        rm -rf -- "$fresh"
        stop_if_interrupted
        fail 3 "runtime python: the requirements could not be installed, the message stands above; set runtime to docker, or to path where quant-verify is installed"
    fi
    chmod 755 "$fresh"
    [[ -x $environment/bin/python ]] || rm -rf -- "$environment" # its Python is gone
    "$python" -I -c 'import os, sys; os.rename(*sys.argv[1:])' "$fresh" "$environment" 2>/dev/null ||
        rm -rf -- "$fresh" # another job was faster
}

fill_environment() { # FOLDER fast|whole: with this Python's pip, which takes 3 s less, or with one of its own
    local pip=("$python" -I -m pip --python "$1/bin/python") without=(--without-pip)
    if [[ $2 != fast ]]; then
        pip=("$1/bin/python" -I -m pip)
        without=()
    fi
    run_child "$python" -I -m venv ${without[@]+"${without[@]}"} "$1"
    [[ $status == 0 ]] || return 0
    run_child env -u PIP_TARGET -u PIP_PREFIX -u PIP_ROOT -u PIP_USER -u PIP_DRY_RUN \
        "${pip[@]}" install "${PIP_OPTIONS[@]}" --constraint "$root/constraints.txt" --requirement "$work/requirements.txt"
}
