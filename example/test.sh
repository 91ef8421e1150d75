#!/usr/bin/env bash
# Builds and installs the driver, starts a Nomad development agent, runs the three example jobs and every kind of exec, and
# compares the answers. It installs missing packages first, prints one line a step, and ends non-zero at the first failure.
usage() {
  cat <<'TEXT'
usage: example/test.sh [--keep] [--vmm auto|firecracker|qemu] [--port N]

  --keep      leave the agent and the exec-test job running, and print the commands to try
  --vmm NAME  the program that runs the VMs (default: $LITEGIX_VMM, else auto, or qemu if Firecracker is installed
              but this machine's KVM runs no guests)
  --port N    the agent's HTTP port; N+1 and N+2 are used too (default: 4646)

environment:
  PLUGIN_DIR     where the driver is installed (default: /opt/nomad/plugins)
  FIRECRACKER    the firecracker program, when it is not on PATH
  LITEGIX_CACHE  downloads and slow builds (default: ~/.cache/litegix-fc-driver)
TEXT
}

. "$(dirname "$0")/../scripts/lib/all.sh"
. "$project/example/lib/agent.sh"
. "$project/example/lib/jobs.sh"
. "$project/example/lib/execs.sh"

keep=no
vmm=${LITEGIX_VMM:-auto}
port=4646
while [ $# -gt 0 ]; do
  case $1 in
    --keep) keep=yes ;;
    --vmm | --port)
      [ $# -ge 2 ] || fail "$1 needs a value; see --help"
      if [ "$1" = --vmm ]; then vmm=$2; else port=$2; fi
      shift
      ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; fail "unknown argument $1" ;;
  esac
  shift
done
case $vmm in auto | firecracker | qemu) ;; *) fail "--vmm $vmm: must be auto, firecracker or qemu" ;; esac
[[ $port =~ ^[0-9]+$ ]] || fail "--port $port: must be a number"
[ "$(id -u)" -eq 0 ] || fail "a Nomad agent that starts VMs must run as root: sudo example/test.sh"

plugin_dir=${PLUGIN_DIR:-/opt/nomad/plugins}
base=/var/lib/litegix-fc-driver
began=$(now_ms)
work=$(mktemp -d "${TMPDIR:-/tmp}/litegix-test-XXXXXX")
trap 'finish $?' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

need squashfs-tools mksquashfs
need e2fsprogs mkfs.ext4
need iproute2 ip
need nftables nft
need bsdutils script
need curl curl
need busybox-static /bin/busybox
need_build_packages
[ "$vmm" = firecracker ] || need qemu-system-x86 qemu-system-x86_64
install_missing
done_line "this machine has what the driver needs" "$began"

require_free_ports
ensure_node_modules
step build "build dist/litegix-fc-driver" "$project/scripts/build.sh"
step install "install it to $plugin_dir" install -D -m 755 "$project/dist/litegix-fc-driver" "$plugin_dir/litegix-fc-driver"
install_kernel "$base"
choose_vmm

start=$(now_ms)
ensure_nomad
done_line "Nomad $("$nomad" version | sed -n 's/^Nomad v//p') from $nomad_origin" "$start"

choose_image_source
start_agent
wait_for_driver

start=$(now_ms)
run_job simple-firecracker simple-test.nomad complete
expect_log "hello from a microVM"
done_line "job simple-firecracker: ran and ended with exit code 0" "$start"
show_log

start=$(now_ms)
run_job detailed-test detailed-test.nomad complete
expect_log "== done"
done_line "job detailed-test: printed its VM" "$start"
show_log

start=$(now_ms)
run_job exec-test exec-test.nomad running
expect_log "ready"
done_line "job exec-test: is running" "$start"

start=$(now_ms)
find_vm_address
answer=$(ask_vm) || fail "the VM's web server does not answer at $vm_address"
done_line "a request into the VM, http://$vm_address: $answer" "$start"

run_all_execs

if [ "$keep" = yes ]; then
  print_what_to_try
else
  start=$(now_ms)
  clean_up || fail "$left_behind"
  done_line "cleaned up: jobs, agent, VMs" "$start"
fi
printf 'ok      all of it (%s)\n' "$(seconds_since "$began")"
