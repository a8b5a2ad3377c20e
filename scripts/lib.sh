# shellcheck shell=bash
# Shared by the scripts: messages, the cache folder, missing packages, free space. Source it after `set -euo pipefail`.

step=$(basename "$0" .sh)
# Shared by all clones on this machine: libraries, tools, CI's build folder.
cache=${ELEPHANT_CACHE:-${XDG_CACHE_HOME:-${HOME:-}/.cache}/elephant-server}
# The folder in which rustup installs Rust, for shells that were started before the installation.
PATH=$PATH:${CARGO_HOME:-${HOME:-}/.cargo}/bin

say() { printf '%s: %s\n' "$step" "$*" >&2; }

# Ends the run. First argument: what went wrong. Other arguments, one line each: what to do.
die() {
    say "error: $1"
    shift
    [ $# -eq 0 ] || printf '    %s\n' "$@" >&2
    exit 1
}

make_cache_folder() {
    if ! mkdir -p "$cache" 2>/dev/null || ! [ -w "$cache" ]; then
        die "cannot write to the cache folder $cache" "Choose one that you can write to, for example:  ELEPHANT_CACHE=/some/folder make $step"
    fi
}

# need_space FOLDER MEGABYTES WHAT ADVICE: ends the run if FOLDER's disk has less free space.
need_space() {
    local free
    free=$(df -Pk -- "$1" | awk 'NR == 2 { print int($4 / 1024) }')
    [ "$free" -ge "$2" ] || die "$3 needs $2 MB of free disk space in $1, which has $free MB" "$4"
}

# need_packages COMMAND=PACKAGE...: installs the Debian or Ubuntu packages whose command (or file) is missing.
need_packages() {
    local pair missing=() packages=()
    for pair in "$@"; do
        command -v "${pair%%=*}" >/dev/null || [ -e "${pair%%=*}" ] || {
            missing+=("${pair%%=*}")
            packages+=("${pair#*=}")
        }
    done
    [ ${#packages[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null ||
        die "missing on this machine: ${missing[*]}" "Install the packages that contain them with this system's package manager, then run it again."
    local root=()
    if [ "$(id -u)" -ne 0 ]; then
        can_sudo || die "these packages are missing, and only root can install them: ${packages[*]}" \
            "Ask an administrator to run:  sudo apt-get install ${packages[*]}" "Then run it again: nothing else here needs root."
        root=(sudo)
    fi
    say "installing ${packages[*]}"
    local apt=("${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300)
    local install=("${apt[@]}" install -y --no-install-recommends "${packages[@]}")
    local log
    log=$(mktemp)
    # The package lists are updated only if the present ones are not sufficient.
    "${install[@]}" </dev/null &>/dev/null || "${apt[@]}" update </dev/null &>"$log" || true
    "${install[@]}" </dev/null &>>"$log" || {
        cat "$log" >&2
        die "apt-get could not install ${packages[*]}" "Is there a network? Install them by hand, then run it again."
    }
    rm -f "$log"
}

# Without a terminal, only if sudo asks for no password.
can_sudo() { command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; }
