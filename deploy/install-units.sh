#!/usr/bin/env bash
# Installs the systemd user units, with the places of the programs in them.
# For one user, what is between the lines BEGIN and END namespaces is left out: a user can read his own programs, and may
# then look into a process of his in a user namespace. Where users may not make such namespaces, it is left out as well:
# the units would not start.
#
# usage: deploy/install-units.sh PREFIX FOLDER all|one
set -euo pipefail

prefix=${1:?usage: install-units.sh PREFIX FOLDER all|one} folder=${2:?no folder} for=${3:?all or one}
units=$(dirname "$0")/systemd

# Whether users may make user namespaces on this machine.
namespaces() { setpriv --reuid 65534 --regid 65534 --clear-groups unshare --user true 2>/dev/null; }

leave_out=()
if [[ $for == one ]]; then
    leave_out=(-e '/^# BEGIN namespaces/,/^# END namespaces/d')
elif ! namespaces; then
    echo "pds: users may make no namespaces here, so the units do without; what that means: systemd-analyze --user security" >&2
    leave_out=(-e '/^# BEGIN namespaces/,/^# END namespaces/d')
fi
install -d -m 0755 "$folder"
for unit in "$units"/*; do
    target=$folder/$(basename "$unit")
    sed "${leave_out[@]}" -e "s#/usr/local/#$prefix/#g" "$unit" >"$target.new"
    chmod 0644 "$target.new"
    mv -f "$target.new" "$target"
done
echo "pds: units in $folder; to have them at every login: systemctl --user enable pds.target pds-bus.socket (with --global as root)"
# A systemd that runs has to be told; without one there is nothing to tell.
if [[ $for == one && -S ${XDG_RUNTIME_DIR:-/nonexistent}/systemd/private ]]; then
    systemctl --user daemon-reload || true
fi
