#!/usr/bin/env bash
# Runs a command with a working /dev/kvm, on a machine that has no usable KVM.
#
#   nested-kvm.sh [--mem MIB] [--cpus N] [--cgroup 1|2] [--timeout SECONDS] -- COMMAND [ARGUMENT...]
#
# An emulated QEMU machine with AMD's virtualisation boots Debian's generic kernel. Its root is this machine's own root
# (9p, read-only) below a throw-away overlay, so that every file and program is there under its path. Files that COMMAND
# writes are lost. COMMAND runs as root in this working directory, with loopback as the only network. Its output comes
# out here, and its exit status is this script's. 125 means that the machine died under it: QEMU's emulated
# virtualisation crashes or stops a machine after some minutes of guests. Seen with 7.2 and 10.0: a page fault with a
# guest's GS, a lost interrupt; with 11.1 and two CPUs: an overwritten stack. LITEGIX_RIG_QEMU names another QEMU than
# the one on PATH. The rig is slow (each instruction is emulated): it shows that something works, not how fast.
. "$(dirname "$0")/../../scripts/lib/all.sh"

memory=6144 cpus=1 limit=1500 cgroup=2
while [ $# -gt 0 ]; do
  case $1 in
    --mem) memory=$2; shift 2 ;;
    --cpus) cpus=$2; shift 2 ;;
    --cgroup) cgroup=$2; shift 2 ;;
    --timeout) limit=$2; shift 2 ;;
    --) shift; break ;;
    *) fail "unknown option $1" ;;
  esac
done
[ $# -gt 0 ] || fail "no command given: nested-kvm.sh -- COMMAND"

qemu=${LITEGIX_RIG_QEMU:-qemu-system-x86_64}
[ -n "${LITEGIX_RIG_QEMU:-}" ] || need qemu-system-x86 qemu-system-x86_64
need busybox-static /bin/busybox
need kmod modprobe
need cpio cpio
need e2fsprogs mkfs.ext4
install_missing
ensure_rig_kernel

work=$(mktemp -d "${TMPDIR:-/tmp}/litegix-rig-XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/root/bin" "$work/root/modules" "$work/result"

# The root's modules, in the order of their dependencies, until this machine's own are in reach.
version=$(ls "$rig_kernel/lib/modules")
for module in virtio_pci virtio_console 9pnet_virtio 9p overlay virtio_blk crc32c_generic ext4 kvm-amd; do
  modprobe -d "$rig_kernel" -S "$version" --show-depends "$module" | awk '$1 == "insmod" { print $2 }'
done | awk '!seen[$0]++' | while read -r file; do
  cp "$file" "$work/root/modules/"
  basename "$file" >>"$work/root/modules/order"
done
cp /bin/busybox "$work/root/bin/busybox"
cp "$project/test/rig/init.sh" "$work/root/init"
cp "$project/test/rig/start.sh" "$work/result/start.sh"
{
  printf 'modules=%q version=%q cgroup=%q\n' "$rig_kernel/lib/modules/$version" "$version" "$cgroup"
} >"$work/root/settings"
{
  printf 'cd %q\n' "$PWD"
  export -p | grep -E '^declare -x (PATH|HOME|LANG|LC_ALL|CI|TERM|FIRECRACKER|JAILER|LITEGIX_[A-Z0-9_]*|NODE_[A-Z_]*)=' || true
  # The command may change that machine's clock and everything else.
  echo 'export LITEGIX_IN_RIG=1'
  printf 'exec'
  printf ' %q' "$@"
  echo
} >"$work/result/command.sh"
(cd "$work/root" && find . | cpio -o -H newc --quiet) >"$work/initrd"

# For /tmp. In the machine's memory, the kernel would charge a VM for the data that it writes to its disk there.
truncate -s 32G "$work/disk"
mkfs.ext4 -q -O ^has_journal -E lazy_itable_init=1,nodiscard "$work/disk"

share() { printf 'local,path=%s,mount_tag=%s,security_model=none,multidevs=remap' "$1" "$2"; }
machine_died=125
# The machine prints to its serial console every five seconds of its own time, which an overloaded host stretches.
max_silence=180
status=0
# All emulated CPUs read one time stamp counter, which the kernel would distrust by default. Then each reading of the
# clock would go to an emulated device (HPET), and guests would have no stable clock.
timeout "$limit" "$qemu" -M q35 -accel tcg,thread=multi -cpu EPYC,+svm,+npt -smp "$cpus" -m "$memory" \
  -nodefaults -no-user-config -no-reboot -display none -kernel "$rig_kernel"/boot/vmlinuz-* -initrd "$work/initrd" \
  -append "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable" -serial "file:$work/console" \
  -device virtio-serial-pci -chardev stdio,id=out,signal=on -device virtconsole,chardev=out \
  -drive "file=$work/disk,format=raw,if=none,id=tmp,cache=unsafe" -device virtio-blk-pci,drive=tmp \
  -virtfs "$(share / host),readonly=on" -virtfs "$(share "$work/result" result)" </dev/null 2>"$work/qemu.log" &
machine=$!
trap 'kill "$machine" 2>/dev/null || true; rm -rf "$work"' EXIT
while kill -0 "$machine" 2>/dev/null; do
  sleep 2
  if [ $(($(date +%s) - $(stat -c %Y "$work/console" 2>/dev/null || date +%s))) -gt "$max_silence" ]; then
    printf 'rig     the machine was silent for %s s\n' "$max_silence" >&2
    kill "$machine" 2>/dev/null
    break
  fi
done
wait "$machine" || status=$?

if [ -f "$work/result/status" ]; then exit "$(cat "$work/result/status")"; fi
[ "$status" != 124 ] || fail "the command did not end within $limit s"
grep -v '^alive' "$work/console" | tail -n 20 >&2 || true
printf 'rig     the machine died\n' >&2
exit "$machine_died"
