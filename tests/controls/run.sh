#!/usr/bin/env bash
# usage: run.sh [NAME...]
#
# Shows that the tests of what pds promises can fail: each patch beside this file takes one mechanism away, in a copy of
# the sources, and the tests named in it must then go red. A patch says in its first lines
#   What:  what is so without the mechanism
#   Build: what cargo has to build for the tests
#   Red:   the tests, as a filter of nextest
# and is made by hand, with git diff. One that does not apply any more has to be made anew.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
work=${CARGO_TARGET_DIR:-$top/target}/controls
features=$(pkg-config --exists libcrypto || echo --features core-secrets/vendored-openssl)

field() { sed -n "s/^$1: *//p" "$2" | head -1; }

rm -rf "$work/sources"
mkdir -p "$work/sources"
git -C "$top" archive HEAD | tar -x -C "$work/sources"
cd "$work/sources"
# git must not take the copy for a part of the repository around it.
export GIT_CEILING_DIRECTORIES=$work CARGO_TARGET_DIR=$work/target

[ $# -gt 0 ] || set -- "$here"/*.patch
failed=0
for patch; do
    patch=$here/$(basename "$patch" .patch).patch
    name=$(basename "$patch" .patch)
    if ! git apply "$patch" 2>/dev/null; then
        echo "$name: the patch does not apply"; failed=1; continue
    fi
    log=$work/$name.log
    read -ra build <<<"$(field Build "$patch")"
    [[ " ${build[*]} " == *" --bins "* ]] || build+=(--bins)
    # The programs too: tests of whole systems start them, and cargo builds them for no test.
    if ! cargo build --locked --workspace "${build[@]}" $features >"$log" 2>&1 ||
        ! cargo nextest run --locked --workspace --no-run "${build[@]}" $features >>"$log" 2>&1; then
        verdict="does not compile, see $log"; failed=1
    else
        status=0
        cargo nextest run --locked --workspace --no-fail-fast "${build[@]}" $features \
            -E "$(field Red "$patch")" >>"$log" 2>&1 || status=$?
        case $status in
            # What nextest says when tests failed.
            100) verdict="red: $(sed -n 's/^ *Summary.*tests* run: *//p' "$log" | tail -1)" ;;
            0) verdict="GREEN: no test notices, see $log"; failed=1 ;;
            *) verdict="no test was run, see $log"; failed=1 ;;
        esac
    fi
    echo "$name ($(field What "$patch")): $verdict"
    git apply --reverse "$patch"
done
exit $failed
