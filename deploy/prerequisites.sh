#!/usr/bin/env bash
# Looks for what a make target needs beside the Rust crates, and says what is missing.
# As root on Debian or Ubuntu it installs that, unless PDS_NO_INSTALL is set. A second run finds nothing to do.
#
# usage: deploy/prerequisites.sh build|test|check
set -euo pipefail

purpose=${1:?usage: prerequisites.sh build|test|check}
packages=()
reasons=()

# need WHAT PACKAGE: notes a Debian package, and what it is needed for.
need() {
    packages+=("$2")
    reasons+=("$1 (Debian: $2)")
}

has() { command -v "$1" >/dev/null 2>&1; }

# The tests take the newest version of those that Debian keeps side by side.
has_postgres() { compgen -G '/usr/lib/postgresql/*/bin/initdb' && compgen -G '/usr/lib/postgresql/*/bin/psql'; } >/dev/null

has_pam_systemd() { compgen -G '/lib/*/security/pam_systemd.so' >/dev/null || [[ -e /lib/security/pam_systemd.so ]]; }

# Debian's own Python, because the package is Debian's.
has_python_dotenv() { /usr/bin/python3 -c 'import dotenv' 2>/dev/null; }
has_python_yaml() { /usr/bin/python3 -c 'import yaml' 2>/dev/null; }
has_dissononce() { /usr/bin/python3 -c 'import dissononce' 2>/dev/null; }

has_busybox_static() { [[ -x /bin/busybox ]] && ! ldd /bin/busybox >/dev/null 2>&1; }

may_install() { [[ $(id -u) -eq 0 && -z ${PDS_NO_INSTALL:-} ]] && has apt-get; }

look_for_packages() {
    has cc || need 'a C compiler and the C library' build-essential
    has pkg-config || need 'pkg-config, to find libraries' pkg-config
    if ! has pkg-config || ! pkg-config --exists libcrypto; then
        # Not needed, but building OpenSSL instead takes minutes, and needs Perl.
        if may_install || ! has perl; then
            need "OpenSSL's libcrypto, for SQLCipher" libssl-dev
        else
            echo "pds: no libcrypto is installed (Debian: libssl-dev), so OpenSSL is built from source; this takes some minutes" >&2
        fi
    fi
    if [[ $purpose == test ]]; then
        has strace || need 'strace, to see and fail system calls of the daemons' strace
        has gcore || need "gdb's gcore, to look for secrets in cores of the daemons" gdb
        has ssh-agent || need 'ssh-agent, for tests of unlocking with a key that it holds' openssh-client
        has git || need 'git, to ask for passwords and to look through what it keeps' git
        [[ -x /usr/sbin/sshd ]] || need 'sshd, to log in with a key whose passphrase is a secret' openssh-server
        has bwrap || need 'bubblewrap, to ask for a program from inside a sandbox' bubblewrap
        has_postgres || need 'a PostgreSQL server and psql, for a test with a real program' postgresql
        [[ -x /lib/systemd/systemd ]] || need 'systemd, to boot machines on which pds runs as units' systemd
        has dbus-daemon || need "D-Bus, for the same" dbus
        [[ -e /usr/lib/systemd/user/dbus.socket ]] || need "D-Bus of a user's session, for the same" dbus-user-session
        has_pam_systemd || need 'sessions of logind, for the same' libpam-systemd
        has pkcheck || need 'polkit, which logind asks whether suspend is to wait' polkitd
        has dash || need 'dash, to read what pds env writes' dash
        has fish || need 'fish, for the same, and to complete command lines' fish
        has ed || need 'ed, to edit secrets' ed
        has vi || need 'vim, for the same' vim-tiny
        has zsh || need 'zsh, to complete command lines' zsh
        has direnv || need 'direnv, for the same' direnv
        has_python_dotenv || need 'python-dotenv, for the same' python3-dotenv
        has pass || need 'pass with gpg, for a real store of it to import' pass
        has_python_yaml || need "Python's YAML, to read a Secret of Kubernetes" python3-yaml
        has podman || need 'podman, for containers that read secrets' podman
        has crun || need 'crun, for the same' crun
        has_busybox_static || need 'a busybox that is all in one file, for the image of these' busybox-static
        has_dissononce || need 'dissononce, for a client of the bus in Python' python3-dissononce
    fi
}

install_packages() {
    echo "pds: installing ${packages[*]}" >&2
    export DEBIAN_FRONTEND=noninteractive
    local install=(apt-get install --yes --quiet --no-install-recommends "${packages[@]}")
    # The lists of packages are absent from a fresh image, or too old.
    "${install[@]}" >&2 || { apt-get update --quiet >&2 && "${install[@]}" >&2; }
}

look_for_rust() {
    has cargo && return
    echo "pds: cargo is missing: install Rust 1.90 or newer (https://rustup.rs)" >&2
    exit 1
}

# need_cargo PROGRAM CRATE: a tool that cargo itself installs.
need_cargo() {
    cargo "$1" --version >/dev/null 2>&1 && return
    echo "pds: installing $2 with cargo; this takes some minutes" >&2
    cargo install --locked "$2" >&2
}

look_for_component() {
    cargo "$1" --version >/dev/null 2>&1 && return
    echo "pds: cargo $1 is missing: rustup component add $2" >&2
    exit 1
}

look_for_rust
look_for_packages
if ((${#packages[@]})); then
    if may_install; then
        install_packages
    else
        printf 'pds: missing: %s\n' "${reasons[@]}" >&2
        echo "pds: on Debian or Ubuntu: sudo apt-get install ${packages[*]}" >&2
        exit 1
    fi
fi
case $purpose in
    build) ;;
    test) need_cargo nextest cargo-nextest ;;
    check)
        look_for_component fmt rustfmt
        look_for_component clippy clippy
        need_cargo deny cargo-deny
        ;;
    *) echo "pds: unknown purpose '$purpose'" >&2; exit 2 ;;
esac
