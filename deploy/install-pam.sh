#!/usr/bin/env bash
# Installs what has a login unlock pds, and removes it. It is not in force before `pam-auth-update --enable pds`.
#
# usage: deploy/install-pam.sh install|uninstall PREFIX DESTDIR
set -euo pipefail

verb=${1:?install or uninstall} prefix=${2:?no PREFIX} root=${3-}
source=$(dirname "$0")/pam
hook=$prefix/lib/pds/pam-hook profile=/usr/share/pam-configs/pds

# A file of ours, with the places where things are installed.
place() {
    install -d -m 0755 "$root$(dirname "$2")"
    sed "s#/usr/local/\(bin/pds\|lib/pds\)#$prefix/\1#g" "$1" >"$root$2.new"
    chmod "$3" "$root$2.new"
    mv -f "$root$2.new" "$root$2"
}

case $verb in
    install)
        place "$source/pam-hook" "$hook" 0755
        if command -v pam-auth-update >/dev/null; then
            place "$source/pds" "$profile" 0644
            echo "pds: to unlock at login, and to lock at the last logout: pam-auth-update --enable pds"
        fi
        ;;
    uninstall)
        if [[ -z $root && -e $profile ]]; then
            pam-auth-update --package --remove pds
        fi
        rm -f "$root$profile" "$root$hook"
        ;;
    *) echo "install-pam.sh: unknown verb '$verb'" >&2; exit 2 ;;
esac
