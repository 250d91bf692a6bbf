#!/bin/sh
# Builds the source distribution and, from it, the wheel; `make dist` calls it.
#
#   packaging/dist.sh PYTHON FOLDER
#
# PYTHON has the package build, which downloads setuptools.
set -eu
umask 022
python=$(realpath -s "$1")
mkdir -p "$2"
folder=$(realpath "$2")
cd "$(dirname "$0")/.."

# Build from a copy: the tree may have files of earlier builds, which setuptools would include.
source=$(mktemp -d)
trap 'rm -rf "$source"' EXIT
git ls-files -z --cached --others --exclude-standard |
    tar -c --null --files-from=- --ignore-failed-read | tar -x -C "$source"
"$python" -m build --outdir "$folder" "$source" >"$source/build.log" 2>&1 || {
    cat "$source/build.log" >&2
    exit 1
}
