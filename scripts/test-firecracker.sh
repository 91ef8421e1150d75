#!/usr/bin/env bash
# The Firecracker half of the end-to-end tests: jailed VMs of the real Firecracker. Arguments are test files.
# FIRECRACKER and JAILER, or PATH, say where the two programs are; without a Firecracker it tests nothing and says so.
# If KVM runs no guests, each file runs in a fresh machine of test/rig, which does not live for long (its head says why).
. "$(dirname "$0")/lib/all.sh"

find_firecracker
if [ -z "$firecracker" ]; then
  printf 'skipped: no firecracker binary\n'
  exit 0
fi

export LITEGIX_E2E_VMM=firecracker
. "$(dirname "$0")/lib/test-environment.sh"

if [ $# -eq 0 ]; then
  set -- test/end-to-end/{examples,firecracker*,many-vms}.test.ts
  # The VMM matters in these too, which also run on QEMU. They would take the emulated machine another hour.
  needs_rig || set -- "$@" test/end-to-end/network*.test.ts
fi
export FIRECRACKER=$firecracker JAILER=$jailer
tests=(node --test --test-concurrency=1 --test-timeout=1200000)
needs_rig || exec "${tests[@]}" "$@"

rig_died=125
failed=()
for file; do
  printf 'rig     %s\n' "$file"
  for attempt in 1 2 3; do
    status=0
    in_rig "${tests[@]}" "$file" || status=$?
    # The machine's death says nothing about the tests; all else is their own.
    [ "$status" = "$rig_died" ] || break
    printf 'rig     the machine died under %s, attempt %s of 3\n' "$file" "$attempt"
  done
  [ "$status" = 0 ] || failed+=("$file")
done
printf 'rig     %s of %s files passed\n' $(($# - ${#failed[@]})) $#
[ ${#failed[@]} -eq 0 ] || fail "failed: ${failed[*]}"
