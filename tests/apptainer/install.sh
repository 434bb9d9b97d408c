#!/bin/sh
# Installs what the tests of images need, on Debian, as root: Apptainer and the tools that it builds with. Does nothing,
# at once, when nothing is missing.
#   APPTAINER_PACKAGE=FILE   used where Debian's own suite has no apptainer (Debian 12): a .deb, or a script that installs it
# Exit codes: 0 everything is there, 1 an installation failed (its output is shown), 2 it cannot be had here.
set -eu
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH

tools="debootstrap squashfs-tools squashfuse uidmap"

say() { printf '%s: %s\n' "$0" "$*" >&2; }

works() { apptainer --version >/dev/null 2>&1; }

missing=
for package in $tools; do
    case $(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null) in
        installed) ;;
        *) missing="$missing $package" ;;
    esac
done
if works && [ -z "$missing" ]; then exit 0; fi

# shellcheck disable=SC1091
id=$(. /etc/os-release 2>/dev/null && printf %s "${ID:-unknown}") || id=unknown
if [ "$id" != debian ]; then
    say "this is '$id' and not Debian: install Apptainer as https://apptainer.org says${missing:+, and the tools:$missing}"
    exit 2
fi
if [ "$(id -u)" -ne 0 ]; then
    say "installing Apptainer${missing:+ and$missing} needs root: sudo bash $0"
    exit 2
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
trap 'exit 1' HUP INT TERM
export DEBIAN_FRONTEND=noninteractive

# attempt WHAT COMMAND...: runs the command; its output is shown only if it fails
attempt() {
    what=$1
    shift
    say "installing $what"
    "$@" >"$log" 2>&1 && return
    cat "$log" >&2
    say "$what could not be installed (the output is above)"
    exit 1
}

apt() { apt-get install -q -y --no-install-recommends "$@"; }

updated() { apt-get update -q && apt "$@"; }

if [ -n "$missing" ]; then
    # shellcheck disable=SC2086
    attempt "${missing# }" updated $missing
fi
if works; then exit 0; fi

in_suite() { apt-cache show apptainer >/dev/null 2>&1; }

in_suite || apt-get update -q >"$log" 2>&1 || cat "$log" >&2
if in_suite; then
    attempt "Apptainer" updated apptainer
elif [ -n "${APPTAINER_PACKAGE:-}" ]; then
    file=$(realpath "$APPTAINER_PACKAGE")
    if [ ! -f "$file" ]; then
        say "there is no file $file (APPTAINER_PACKAGE)"
        exit 2
    fi
    case $file in
        *.deb) attempt "Apptainer from $file" updated "$file" ;;
        *) attempt "Apptainer by $file" bash "$file" ;;
    esac
else
    say "apt knows no package apptainer here: get one from https://github.com/apptainer/apptainer/releases," \
        "and run: sudo APPTAINER_PACKAGE=FILE bash $0"
    exit 2
fi
if ! works; then
    say "Apptainer was installed, and \`apptainer --version\` does not work"
    exit 1
fi
