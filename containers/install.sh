#!/bin/sh
# %post of both images: puts the project and its locked dependencies into the Python environment /opt/neobert.
#   install.sh KIND PYTHON EXTRAS     cpu: torch from the wheels; gpu: the base image's own torch
# Wheels are resolved on the host and bound read-only: the dependencies at /mnt, the project's own at /media. So this
# needs neither a network nor the host's package index.
set -eu
kind=$1 version=$2 extras=$3
here=$(cd "$(dirname "$0")" && pwd)
env=/opt/neobert
lock=$here/constraints.txt

die() { printf 'ERROR: %s\n' "$*" >&2; exit 1; }

pip=$(ls /mnt/pip-*.whl 2>/dev/null) || die "no wheels are bound at /mnt: build with \`recipe image build $kind\`"
project=$(ls /media/neobert_slurm-*.whl 2>/dev/null) || die "the project's wheel is not bound at /media"
python=$(command -v python3) || die "the base image has no python3 on its PATH"
found=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
[ "$found" = "$version" ] || die "the base image has Python $found, and the wheels are for $version:" \
    "build with \`recipe image build $kind --python $found\`"

torch=$(sed -n 's/^torch==//p' "$lock")
if [ "$kind" = gpu ]; then
    found=$("$python" -c 'from importlib.metadata import version; print(version("torch"))' 2>/dev/null) ||
        die "the base image has no PyTorch: choose one with PyTorch $torch (--base)"
    [ "${found%%+*}" = "$torch" ] || die "the base image has PyTorch $found, and the lock (constraints.txt) needs" \
        "$torch: choose another base (--base), or lock $found"
fi
[ ! -e "$env" ] || die "the base image is one of this project's own: give the one that it was built on"
command -v c++ >/dev/null || die "the base image has no C++ compiler, which DeepSpeed needs at run time:" \
    "choose a base for development (its name often ends in -devel)"
[ "$kind" = cpu ] || command -v nvcc >/dev/null ||
    printf 'WARNING: the base image has no nvcc: DeepSpeed cannot compile its CUDA operators (fused Adam, ...)\n' >&2

# An environment of its own over the base's Python: what the base brings stays as it is (pip could not even remove what
# a distribution's package manager or conda installed), and is hidden where the lock has another version.
"$python" -m venv --without-pip "$env"
if [ "$kind" = gpu ]; then
    # Not --system-site-packages: a base's python3 may itself be that of an environment.
    packages=$("$env/bin/python3" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    "$python" -c 'import site; print("\n".join(site.getsitepackages()))' >"$packages/base.pth"
fi
"$env/bin/python3" "$pip/pip" install --isolated --quiet --no-cache-dir --no-compile --disable-pip-version-check \
    --root-user-action ignore --no-index --find-links /mnt --constraint "$lock" "torch==$torch" "${project}[$extras]"
if [ "$kind" = gpu ]; then
    ! ls -d "$env"/lib/python*/site-packages/torch 2>/dev/null || die "pip replaced the base image's PyTorch"
fi
# Byte code is never checked against the sources' dates: the image cannot change.
# (Some packages hold files for newer Pythons, which do not compile, and are not imported.)
"$env/bin/python3" -m compileall -qq -j 0 --invalidation-mode unchecked-hash "$env/lib" || true
if [ "$kind" = cpu ]; then
    rm -rf /var/cache/apt/archives/*.deb /var/lib/apt/lists/* /var/log/* /usr/share/doc /usr/share/man \
        /usr/share/locale /usr/lib/python3*/config-*/*.a /usr/lib/gcc/*/*/lib?san.a /usr/bin/*-lto-dump-*
fi

# Labels that are known only now.
"$env/bin/python3" - "$lock" >>"$APPTAINER_LABELS" <<'P'
import datetime, hashlib, pathlib, platform, sys
import torch
print("org.opencontainers.image.created", datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"))
print("neobert.lock", hashlib.sha256(pathlib.Path(sys.argv[1]).read_bytes()).hexdigest())
print("neobert.python", platform.python_version())
print("neobert.torch", torch.__version__)
print("neobert.cuda", torch.version.cuda or "none")
P
