#!/usr/bin/env bash
# Ends the daemons of this user that systemd runs, and removes the units.
#
# usage: deploy/uninstall-units.sh FOLDER
set -euo pipefail

folder=${1:?usage: uninstall-units.sh FOLDER}
units=$(dirname "$0")/systemd

manager() { [[ -S ${XDG_RUNTIME_DIR:-/nonexistent}/systemd/private ]]; }

if manager && [[ -e $folder/pds.target ]]; then
    systemctl --user --quiet stop pds.target 'pds-*.service' 'pds-*.socket' || true
    systemctl --user --quiet disable pds.target pds-bus.socket || true
fi
for unit in "$units"/*; do
    rm -f "$folder/$(basename "$unit")"
done
if manager; then
    systemctl --user daemon-reload || true
fi
