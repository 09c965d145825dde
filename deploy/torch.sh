#!/bin/sh
# torch.sh PIP INSTALL COMMAND: installs PyTorch as the build arguments of the Dockerfile say.
set -eu
cpu=$(sed -n 's/^\(torch==[^ ]*\).*/\1+cpu/p' requirements/torch.txt)
if [ -n "${TORCH_CPU_SHA256:-}" ]; then
    echo "$cpu --hash=sha256:$TORCH_CPU_SHA256" >cpu.txt
    "$@" --no-deps --require-hashes --requirement cpu.txt
elif [ -n "${PIP_EXTRA_INDEX_URL:-}" ]; then
    "$@" --no-deps "$cpu"
else
    "$@" --no-deps --require-hashes --requirement requirements/torch.txt
fi
