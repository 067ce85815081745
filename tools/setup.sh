# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2034
# What ./demo and ./test share; sourced by them, in the root of the source tree. A second call finds everything in
# place and needs neither the network nor apt.

say() { printf 'kvsieve: %s\n' "$*" >&2; }
stop() { say "$*"; exit 2; }

# Debian packages, each with the command that makes it unnecessary ("-": none, it is a library).
build_packages="build-essential:g++ cmake:cmake ninja-build:ninja ccache:ccache python3:python3 python3-pip:pip
  pkg-config:pkg-config libcli11-dev:- libfmt-dev:- libgtest-dev:- libhwy-dev:- libmd-dev:- libstb-dev:- libzip-dev:-
  nlohmann-json3-dev:- zlib1g-dev:-"
check_packages="clang-format-14:clang-format-14 clang-tidy-14:clang-tidy-14"
# Elsewhere Chromium is no apt package, and the report's test in a browser is skipped.
grep -qsx 'ID=debian' /etc/os-release && check_packages+=" chromium:chromium"

# Prints the packages of the given list that are neither installed nor replaced by a command.
missing_packages() {
    local entry package command
    for entry in $1; do
        package=${entry%%:*} command=${entry#*:}
        case $command in
            -) ;;
            pip) python3 -m pip --version >/dev/null 2>&1 && continue ;;
            *) command -v "$command" >/dev/null && continue ;;
        esac
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] && continue
        echo "$package"
    done
}

# install_packages LIST: installs what is missing of it, or says what is missing and stops with 2.
install_packages() {
    command -v dpkg-query >/dev/null || {
        say "this is no Debian or Ubuntu: going on with what is installed (docs/building.md has the list)"
        return
    }
    local missing apt log
    missing=$(missing_packages "$1" | tr '\n' ' ')
    missing=${missing% }
    [ -z "$missing" ] && return
    if [ "$(id -u)" = 0 ]; then
        apt="env"
    elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
        apt="sudo env"
    else
        stop "these packages are missing and this user can use neither root nor sudo to install them: $missing"
    fi
    say "installing $missing"
    log=$(mktemp)
    apt="$apt DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0"
    # shellcheck disable=SC2086  # a list of packages
    if ! { $apt update && $apt install -y --no-install-recommends $missing; } </dev/null >"$log" 2>&1; then
        tail -n 15 "$log" >&2
        rm -f "$log"
        stop "apt-get could not install $missing"
    fi
    rm -f "$log"
}

check_versions() {
    local cmake_version
    cmake_version=$(cmake --version | sed -n 's/^cmake version \([0-9.]*\).*/\1/p')
    printf '3.25\n%s\n' "$cmake_version" | sort -C -V ||
        stop "cmake $cmake_version is installed, 3.25 or newer is needed (Debian 12, Ubuntu 24.04, or \`pip install cmake\`)"
}

# Compilers at once: one per core, and one per 1.5 GB of free memory.
build_jobs() {
    local cores memory
    cores=$(nproc)
    memory=$(awk '/^MemAvailable/ { print int($2 / 1500000) }' /proc/meminfo)
    [ "$memory" -lt 1 ] && memory=1
    [ "$cores" -lt "$memory" ] && echo "$cores" || echo "$memory"
}

# build PRESET TESTS TARGET...: configures build/PRESET where that has not been done, with the tests if TESTS is ON
# (they fetch a second model), and builds the targets.
build() {
    local preset=$1 tests=$2 dir="build/$1" log="build/$1.configure.log" configured
    shift 2
    mkdir -p build
    # a tree that was moved since
    if [ -f "$dir/CMakeCache.txt" ] && ! grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$PWD" "$dir/CMakeCache.txt"; then
        rm -rf "$dir"
    fi
    configured=no
    if [ -f "$dir/build.ninja" ]; then
        if [ "$tests" = OFF ] || grep -qx 'KVSIEVE_BUILD_TESTS:BOOL=ON' "$dir/CMakeCache.txt"; then
            configured=yes
        fi
    fi
    if [ "$configured" = no ]; then
        say "configuring $dir (the first time fetches llama.cpp, 77 MB)"
        if ! cmake --preset "$preset" -DKVSIEVE_BUILD_TESTS="$tests" >"$log" 2>&1; then
            grep -A20 'CMake Error' "$log" >&2 || tail -n 20 "$log" >&2
            say "the configuration of $dir failed; $log has everything"
            exit 1
        fi
    fi
    say "building $dir"
    cmake --build "$dir" --parallel "$(build_jobs)" --target "$@" >&2 || {
        say "the build of $dir failed"
        exit 1
    }
}
