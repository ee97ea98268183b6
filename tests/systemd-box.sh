#!/usr/bin/env bash
# A machine of its own for a test: the root folder of this one, with what is written to it thrown away, and systemd as its
# first process, with logind, PAM and the journal. Needs root, and nothing but systemd, dbus and util-linux.
#
# usage: tests/systemd-box.sh start STATE [FROM:TO]...   boots it, with the folder FROM of this machine to be seen at TO
#        tests/systemd-box.sh exec STATE COMMAND...      runs a command in it as root, in no unit
#        tests/systemd-box.sh stop STATE                 powers it off
# STATE is an empty folder, for what belongs to the box.
set -euo pipefail

verb=${1:?no verb} state=${2:?no folder}
shift 2
tree=/sys/fs/cgroup
[[ -f $tree/cgroup.procs ]] || tree=/sys/fs/cgroup/unified
# A machine without systemd has the groups of today mounted beside those of old, or not at all.
[[ -f $tree/cgroup.procs ]] || { mkdir -p "$tree" && mount -t cgroup2 cgroup2 "$tree"; }
group=$tree/pds-box-$(basename "$state")

first() { cat "$state/first"; }

# What the machine is made of, in namespaces of its own. The system controls stay read-only, or systemd would set those
# of the host.
build() {
    cat <<'MACHINE'
set -eu
state=$1; shift; top=$state/top
mount -t tmpfs tmpfs "$top"; mkdir "$top/up" "$top/work" "$top/root"
mount -t overlay -o "lowerdir=/,upperdir=$top/up,workdir=$top/work" overlay "$top/root"
for pair in "$@"; do
    mkdir -p "$top/root${pair#*:}"; mount --bind "${pair%%:*}" "$top/root${pair#*:}"
done
cd "$top/root"
mount -t proc -o nosuid,nodev,noexec proc proc
mount --bind proc/sys proc/sys; mount -o remount,bind,ro proc/sys
mount -t sysfs -o nosuid,nodev,noexec,ro sysfs sys; mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run; mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev; mkdir dev/pts dev/shm
for device in null zero full random urandom tty; do touch "dev/$device"; mount --bind "/dev/$device" "dev/$device"; done
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts; mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s pts/ptmx dev/ptmx; ln -s /proc/self/fd dev/fd
for pair in 0:stdin 1:stdout 2:stderr; do ln -s "fd/${pair%:*}" "dev/${pair#*:}"; done
hostname pds-box; ip link set lo up 2>/dev/null || true
pivot_root . mnt; umount -l mnt; cd /
# As systemd finds it where it is no container: what it mounts for a service has to get there.
mount --make-rshared /
exec env -i container=pds PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd \
    systemd.mask=postgresql.service systemd.mask=systemd-timesyncd.service
MACHINE
}

start() {
    mkdir -p "$state/top" "$group"
    build >"$state/machine"
    # The whole box stays below one control group, so that nothing of it can be left over.
    setsid bash -c 'echo $$ >"$1/cgroup.procs"; state=$2; shift 2
        exec unshare -m -u -i -n -C -p -f --propagation private bash "$state/machine" "$state" "$@"' \
        bash "$group" "$state" "$@" </dev/null >"$state/console" 2>&1 &
    local parent=$! found=
    echo "$parent" >"$state/parent"
    for _ in $(seq 200); do
        found=$(pgrep -P "$parent" -x systemd || true)
        [[ -n $found ]] && break
        kill -0 "$parent" 2>/dev/null || { cat "$state/console" >&2; exit 1; }
        sleep 0.05
    done
    echo "$found" >"$state/first"
    for _ in $(seq 400); do
        nsenter -t "$found" -a test -S /run/dbus/system_bus_socket && break
        sleep 0.05
    done
    nsenter -t "$found" -a systemctl is-system-running --wait >/dev/null || {
        nsenter -t "$found" -a systemctl list-units --failed --no-legend >&2
    }
}

stop() {
    local found parent
    found=$(first) parent=$(cat "$state/parent")
    kill -RTMIN+4 "$found" 2>/dev/null || true # to power off
    for _ in $(seq 200); do kill -0 "$parent" 2>/dev/null || break; sleep 0.05; done
    kill -KILL "$found" "$parent" 2>/dev/null || true
    # The last process may take a moment to leave it.
    for _ in $(seq 100); do
        find "$group" -depth -type d -exec rmdir {} + 2>/dev/null && break
        sleep 0.05
    done
}

case $verb in
    start) start "$@" ;;
    exec) exec nsenter -t "$(first)" -a --wdns=/ -- env -i HOME=/root TERM=dumb LC_ALL=C.UTF-8 \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@" ;;
    stop) stop ;;
    *) echo "systemd-box.sh: unknown verb '$verb'" >&2; exit 2 ;;
esac
