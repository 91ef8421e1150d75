#!/bin/busybox sh
# PID 1 of the machine that nested-kvm.sh boots, until the root is in place.
busybox=/bin/busybox
. /settings
$busybox mkdir -p /proc /sys /dev /host /upper /new
$busybox mount -t proc proc /proc
$busybox mount -t sysfs sys /sys
$busybox mount -t devtmpfs dev /dev
while read -r module; do $busybox insmod "/modules/$module"; done </modules/order

options=trans=virtio,version=9p2000.L,msize=262144
$busybox mount -t 9p -o $options,ro,cache=loose host /host
$busybox mount -t tmpfs tmpfs /upper
$busybox mkdir -p /upper/u /upper/w
$busybox mount -t overlay -o lowerdir=/host,upperdir=/upper/u,workdir=/upper/w overlay /new
for directory in proc sys dev run tmp; do $busybox mkdir -p /new/$directory; done
for directory in proc sys dev; do $busybox mount --move /$directory /new/$directory; done
for directory in run dev/shm; do
  $busybox mkdir -p /new/$directory
  $busybox mount -t tmpfs tmpfs /new/$directory
done
$busybox mount -t ext4 /new/dev/vda /new/tmp || exec $busybox poweroff -f
$busybox chmod 1777 /new/tmp
$busybox mkdir -p /new/dev/pts
$busybox mount -t devpts -o mode=620,ptmxmode=666 devpts /new/dev/pts

if [ "$cgroup" = 2 ]; then
  $busybox mount -t cgroup2 cgroup2 /new/sys/fs/cgroup
else
  $busybox mount -t tmpfs tmpfs /new/sys/fs/cgroup
  for controllers in cpuset cpu,cpuacct memory pids blkio devices freezer; do
    $busybox mkdir -p "/new/sys/fs/cgroup/$controllers"
    $busybox mount -t cgroup -o "$controllers" cgroup "/new/sys/fs/cgroup/$controllers"
  done
fi

$busybox rm -rf "/new/lib/modules/$version"
$busybox mkdir -p /new/lib/modules /new/run/rig
$busybox ln -s "$modules" "/new/lib/modules/$version"
$busybox mount -t 9p -o $options,rw result /new/run/rig
$busybox ifconfig lo 127.0.0.1 up
$busybox hostname rig
exec $busybox switch_root /new /bin/bash /run/rig/start.sh
