#!/usr/bin/env bash
# Installs what `cargo build` needs on a Debian or Ubuntu machine that has Rust: system packages, libtorch, CMake and libclang.
# `make setup` runs it. CUDA=1 adds libtorch's CUDA libraries, CUDA=0 removes them; otherwise nothing changes there.
#
# These three come from wheels of the Python package index (no Python needed), listed in wheels.txt, and are
# unpacked into a cache folder that every clone shares; .deps links to it, and .cargo/config.toml points to .deps.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

downloads=$cache/downloads
index=${ELEPHANT_PYPI_INDEX:-${PIP_INDEX_URL:-https://pypi.org/simple}}
index=${index%/}

main() {
    check_machine
    # hdf5-metno and the other bundled C and C++ libraries need a compiler and make; the rest is for this script.
    need_packages g++=g++ make=make curl=curl unzip=unzip /etc/ssl/certs/ca-certificates.crt=ca-certificates
    local libtorch cmake=cmake-4.1.2 libclang=libclang-18.1.1
    libtorch=$(libtorch_folder)
    provide cmake "$cmake"
    provide libtorch "$libtorch"
    provide libclang "$libclang"
    link_compiler_headers
    say "ready: $libtorch, $cmake, $libclang"
}

check_machine() {
    local required found
    [ "$(uname -sm)" = "Linux x86_64" ] ||
        die "$(uname -sm) is not supported" "The pinned libtorch exists for Linux on x86_64 only: use such a machine."
    command -v cargo >/dev/null || die "Rust is missing" "Install it as https://rustup.rs says, then run it again."
    required=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    found=$(cargo --version | cut -d' ' -f2)
    printf '%s\n' "$required" "$found" | sort -VC ||
        die "Rust $required or later is needed, this is $found" "Run:  rustup update stable" \
            "Rust from a system package cannot be updated in this way: see https://rustup.rs"
    [ -d "${CARGO_TARGET_DIR:-target}" ] || need_space . 4000 "building" "Free some space and run it again."
}

# The cache folder of the libtorch to link; if CUDA is empty, of the same kind as the present one.
libtorch_folder() {
    local version=libtorch-2.11.0
    case ${CUDA:-} in
    1) echo $version-cu130 ;;
    0) echo $version-cpu ;;
    "") if [ "$(linked libtorch)" = $version-cu130 ]; then echo $version-cu130; else echo $version-cpu; fi ;;
    *) die "CUDA=$CUDA is not a valid choice" "CUDA=1 selects the CUDA libraries, CUDA=0 those for the CPU." ;;
    esac
}

linked() { basename "$(readlink ".deps/$1" || true)"; }

# provide NAME FOLDER: makes .deps/NAME a link to FOLDER in the cache, which is downloaded first if it is missing.
provide() {
    [ "$(linked "$1")" = "$2" ] && [ -d ".deps/$1/" ] && return
    obtain "$2"
    mkdir -p .deps
    ln -sfn "$cache/$2" ".deps/$1"
}

# libclang looks for stddef.h and the like in lib/clang/18, beside itself. Its wheel has none; those of the compiler serve.
link_compiler_headers() {
    local headers
    headers=$(g++ -print-file-name=include)
    mkdir -p .deps/libclang/lib/clang/18
    [ "$(readlink .deps/libclang/lib/clang/18/include || true)" = "$headers" ] ||
        ln -sfn "$headers" .deps/libclang/lib/clang/18/include
}

# obtain FOLDER: downloads and unpacks FOLDER into the cache. It appears there complete or not at all.
obtain() {
    [ -d "$cache/$1" ] && return
    make_cache_folder
    mkdir -p "$downloads"
    # curl inherits the lock: if this script is killed, the next one waits until its curl has ended.
    exec 9>"$cache/.lock"
    flock -n 9 || { say "waiting until another set-up has ended" && flock 9; }
    if [ ! -d "$cache/$1" ]; then
        rm -rf "$cache"/.unpacking-*
        fetch_wheels "$1"
        unpack_wheels "$1"
    fi
    exec 9>&-
}

rows_of() { awk -v folder="$1" '$1 == folder' scripts/wheels.txt; }

fetch_wheels() {
    local file megabytes sum
    # The wheels and what is unpacked from them need three times the size of the wheels.
    need_space "$cache" "$(rows_of "$1" | awk '{ sum += $3 } END { print 3 * sum }')" "$1" \
        "Free some space, or choose a folder on another disk:  ELEPHANT_CACHE=/some/folder make setup"
    while read -r _ file megabytes sum _; do
        fetch_wheel "$file" "$megabytes" "$sum"
    done < <(rows_of "$1")
}

# fetch_wheel FILE MEGABYTES SHA256: the file in the downloads folder, checked; continues an interrupted download.
fetch_wheel() {
    local wheel=$downloads/$1 url name version
    IFS=- read -r name version _ <<<"$1"
    has_sum "$wheel" "$3" && return
    if ! has_sum "$wheel.part" "$3"; then
        url=$(url_of "$1")
        say "downloading ${name//_/-} $version ($2 MB)"
        download "$url" "$wheel.part" ||
            die "could not download $url" "What has arrived is kept: run it again to resume the download."
        has_sum "$wheel.part" "$3" || {
            rm -f "$wheel.part"
            die "$1 from $index is not the file expected (sha256 $3)" \
                "It was deleted: run it again. If it happens twice, the index is wrong: see ELEPHANT_PYPI_INDEX in CONTRIBUTING.md"
        }
    fi
    mv "$wheel.part" "$wheel"
}

has_sum() { [ -f "$1" ] && sha256sum --status -c - <<<"$2  $1"; }

# url_of FILE: its address in the package index, whose links may be relative to the index.
url_of() {
    local project=${1%%-*} page href
    project=${project//_/-}
    page=$(curl -fsSL --retry 2 --connect-timeout 20 --max-time 120 "$index/$project/") ||
        die "cannot reach the package index $index" \
            "Is there a network? Behind a proxy, set https_proxy; for a mirror of the index, ELEPHANT_PYPI_INDEX." \
            "Without a network, put $1 into $downloads and run it again."
    href=$(grep -oE 'href="[^"#]+' <<<"$page" | sed 's/^href="//; s/&amp;/\&/g' |
        awk -v end="/$1" 'substr("/" $0, length($0) - length(end) + 2) == end' | sort -u)
    href=${href%%$'\n'*}
    case $href in
    "") die "the package index $index does not have $1" "Set ELEPHANT_PYPI_INDEX to one that has it." ;;
    http://* | https://*) echo "$href" ;;
    /*) echo "$(grep -oE '^[a-z]+://[^/]+' <<<"$index")$href" ;;
    *) echo "$index/$project/$href" ;;
    esac
}

# download URL FILE: resumes at the end of FILE; after a broken connection again, as long as each attempt adds bytes.
download() {
    local before status reply quiet=(--silent --show-error)
    [ -t 2 ] && quiet=(--progress-bar)
    for _ in {1..50}; do
        before=$(size_of "$2")
        status=0
        reply=$(curl -fL -C - --retry 3 --connect-timeout 20 --speed-limit 1000 --speed-time 60 "${quiet[@]}" \
            -o "$2" -w '%{http_code}' "$1") || status=$?
        [ $status -ne 0 ] || return 0
        [ $status -ne 23 ] || die "cannot write $2: the disk is probably full" "Free some space and run it again."
        if [ "$before" -gt 0 ] && { [ "$reply" = 416 ] || [ $status -eq 33 ]; }; then
            say "the download cannot be resumed; starting it again"
            rm -f "$2"
        elif [ "$(size_of "$2")" -gt "$before" ]; then
            say "the connection was lost; resuming"
        else
            return 1
        fi
    done
    return 1
}

size_of() { if [ -f "$1" ]; then stat -c %s "$1"; else echo 0; fi; }

unpack_wheels() {
    local folder file members
    say "unpacking $1 into $cache"
    folder=$(mktemp -d "$cache/.unpacking-XXXXXX")
    while read -r _ file _ _ members; do
        # The members are patterns for unzip, one word each.
        # shellcheck disable=SC2086
        (set -f && unzip -q "$downloads/$file" $members -d "$folder" </dev/null) || {
            rm -rf "$folder"
            die "cannot unpack $file into $cache" "Is the disk full? Free some space and run it again."
        }
    done < <(rows_of "$1")
    if [ -d "$folder/torch" ]; then
        # torch-sys links -ltorch; the wheel's own libtorch.so would ask for the CUDA libraries, which load at run time.
        rm -f "$folder/torch/lib/libtorch.so" "$folder"/torch/lib/lib{torch_python,shm}.so
        echo 'INPUT(libtorch_cpu.so)' >"$folder/torch/lib/libtorch.so"
        echo 2.11.0 >"$folder/torch/build-version"
    fi
    if [ -d "$folder/libclang-18.1.1.data" ]; then
        mkdir "$folder/lib"
        mv "$folder/libclang-18.1.1.data/platlib/clang/native/libclang.so" "$folder/lib"
        rm -r "$folder/libclang-18.1.1.data"
    fi
    chmod 755 "$folder"
    sync -f "$folder"
    mv -T "$folder" "$cache/$1"
    rows_of "$1" | while read -r _ file _; do rm -f "$downloads/$file"; done
}

main
