#!/bin/sh
# Writes deploy/requirements/*.txt: the packages of constraints.txt that each image needs, with the SHA-256 of every wheel, as
# `pip install --require-hashes` reads them. Call it (`make lock`) whenever constraints.txt has changed; it needs the network.
#
#   build.txt      builds the wheel of lossguard/     trainer.txt    the trainer, without PyTorch
#   service.txt    the collector and the dashboard    torch.txt      PyTorch, and the parts of CUDA that it names
set -eu
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check uv==0.13.9

compile() { # the options that say what is needed
    "$folder/venv/bin/uv" pip compile --quiet --universal --python-version=3.11 --generate-hashes --only-binary=:all: --no-config \
        --no-annotate --no-header --no-emit-index-url --no-emit-find-links --constraint=deploy/constraints.txt "$@"
}

write() { # the file, from standard input
    { echo "# Written by deploy/lock.sh from constraints.txt. Change that file, then call the script."; cat; } >"$folder/$1"
}

torch='^(torch|triton|cuda-|nvidia-)'  # each package is a line that begins with its name, and further lines with its hashes
"$folder/venv/bin/python" -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
    >"$folder/tools.in"
compile "$folder/tools.in" | write build.txt
compile --extra=monitor --extra=dashboard pyproject.toml | write service.txt
compile --extra=trainer pyproject.toml >"$folder/all"
awk -v torch="$torch" '/^[a-z]/ { wanted = $0 !~ torch } wanted' "$folder/all" | write trainer.txt
awk -v torch="$torch" '/^[a-z]/ { wanted = $0 ~ torch } wanted' "$folder/all" | write torch.txt
for file in build service trainer torch; do
    [ "$(wc -l <"$folder/$file.txt")" -gt 1 ] || { echo "lock.sh: $file.txt would be empty" >&2; exit 1; }
done
mkdir -p deploy/requirements
mv "$folder/build.txt" "$folder/service.txt" "$folder/trainer.txt" "$folder/torch.txt" deploy/requirements/
