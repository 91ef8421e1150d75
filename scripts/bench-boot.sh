#!/usr/bin/env bash
# Measures StartTask on Firecracker against bare Firecracker, and prints a waterfall of the boot. The argument: how many runs.
# If KVM runs no guests, it measures in test/rig's machine: the ratio then means something, the milliseconds nothing.
. "$(dirname "$0")/lib/all.sh"

find_firecracker
if [ -z "$firecracker" ]; then
  printf 'skipped: no firecracker binary\n'
  exit 0
fi

. "$(dirname "$0")/lib/test-environment.sh"

# Not below /tmp, which is the rig's own.
base=$cache/bench-boot
node test/bench/boot/prepare.ts "$base"
exec_with_kvm node test/bench/boot/measure-boot.ts "$base" "${1:-5}"
