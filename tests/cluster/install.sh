#!/bin/sh
# Installs what the test cluster needs, on Debian, as root. Does nothing, at once, when nothing is missing.
# Exit codes: 0 everything is there, 1 apt failed (its output is shown), 2 not root or not Debian.
set -eu
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

# mariadb-server-core is the server alone: no service, no system database, nothing to start or to configure.
# The last one, shellcheck, is for the tests of rendered job scripts.
packages="slurmctld slurmd slurmdbd slurm-client slurm-wlm-mysql-plugin munge mariadb-server-core
iproute2 procps util-linux shellcheck"

say() { printf '%s: %s\n' "$0" "$*" >&2; }

# shellcheck disable=SC1091
id=$(. /etc/os-release 2>/dev/null && printf %s "${ID:-unknown}") || id=unknown
if [ "$id" != debian ]; then
    say "the test cluster needs Debian, and this is '$id': run \`sudo make test\` on a Debian machine"
    exit 2
fi

missing=
for package in $packages; do
    case $(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null) in
        installed) ;;
        *) missing="$missing $package" ;;
    esac
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
    say "missing:$missing. Installing them needs root: sudo bash $0"
    exit 2
fi

log=$(mktemp)
policy=/usr/sbin/policy-rc.d
if [ -e "$policy" ]; then policy=; fi
trap 'rm -f "$log" ${policy:+"$policy"}' EXIT
trap 'exit 1' HUP INT TERM

# Packages of daemons start them where systemd runs; a file that answers 101 ("not allowed") keeps them from it.
if [ -n "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi

say "installing$missing"
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086
if ! { apt-get update -q && apt-get install -q -y --no-install-recommends $missing; } >"$log" 2>&1; then
    cat "$log" >&2
    say "apt-get could not install:$missing (its output is above)"
    exit 1
fi
