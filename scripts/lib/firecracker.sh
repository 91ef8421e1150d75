# The real Firecracker, for what needs it: where it is, and a KVM that it can use.

# Sets $firecracker and $jailer (empty when there is none) from FIRECRACKER and JAILER, or PATH.
find_firecracker() {
  firecracker=${FIRECRACKER:-$(command -v firecracker || true)}
  jailer=${JAILER:-$(command -v jailer || true)}
  [ -z "$firecracker" ] || [ -x "$firecracker" ] || fail "FIRECRACKER=$firecracker is not a program"
  [ -z "$jailer" ] || [ -x "$jailer" ] || fail "JAILER=$jailer is not a program"
}

kvm_runs_guests() {
  local base status=0
  base=$(mktemp -d "${TMPDIR:-/tmp}/litegix-doctor-XXXXXX")
  mkdir -p "$base/kernels"
  ln -s "$kernel_directory" "$base/kernels/"
  dist/litegix-fc-driver doctor --vmm firecracker --firecracker-path "$firecracker" ${jailer:+--jailer-path "$jailer"} \
    --rootfs-base-path "$base" >/dev/null || status=1
  rm -rf "$base"
  return "$status"
}

# Whether what needs KVM must run in test/rig's machine, because this machine's KVM runs no guests.
# LITEGIX_RIG=always and =never decide it without looking.
needs_rig() {
  case ${LITEGIX_RIG:-auto} in
    always) return 0 ;;
    never) return 1 ;;
    *) ! kvm_runs_guests ;;
  esac
}

# in_rig COMMAND...: in a machine of its own.
in_rig() { test/rig/nested-kvm.sh --cgroup "${LITEGIX_RIG_CGROUP:-2}" --cpus "${LITEGIX_RIG_CPUS:-1}" -- "$@"; }

# exec_with_kvm COMMAND...: becomes COMMAND, on this machine if its KVM runs guests, else in test/rig's machine.
exec_with_kvm() {
  export FIRECRACKER=$firecracker JAILER=$jailer
  needs_rig || exec "$@"
  in_rig "$@"
  exit
}
