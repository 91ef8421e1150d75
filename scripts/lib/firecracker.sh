# The real Firecracker, for what needs it: where it is, and a KVM that it can use.

# Sets $firecracker and $jailer (empty when there is none) from FIRECRACKER and JAILER, or PATH.
find_firecracker() {
  firecracker=${FIRECRACKER:-$(command -v firecracker || true)}
  jailer=${JAILER:-$(command -v jailer || true)}
  [ -z "$firecracker" ] || [ -x "$firecracker" ] || fail "FIRECRACKER=$firecracker is no program"
  [ -z "$jailer" ] || [ -x "$jailer" ] || fail "JAILER=$jailer is no program"
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

# exec_with_kvm COMMAND...: becomes COMMAND, on this machine where its KVM runs guests, else in test/rig's machine.
# LITEGIX_RIG=always and =never decide it without looking.
exec_with_kvm() {
  local rig=yes
  case ${LITEGIX_RIG:-auto} in
    always) ;;
    never) rig=no ;;
    *) if kvm_runs_guests; then rig=no; fi ;;
  esac
  export FIRECRACKER=$firecracker JAILER=$jailer
  [ "$rig" = yes ] || exec "$@"
  exec test/rig/nested-kvm.sh --cgroup "${LITEGIX_RIG_CGROUP:-2}" -- "$@"
}
