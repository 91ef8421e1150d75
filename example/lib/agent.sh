# The development agent of example/test.sh: its ports, configuration, start and end.

agent_pid=
registry_pid=
left_behind=

port_is_used() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

require_free_ports() {
  local candidate
  for candidate in "$port" $((port + 1)) $((port + 2)); do
    ! port_is_used "$candidate" || fail "port $candidate is in use, by another Nomad agent perhaps: stop it, or use --port N"
  done
}

# The job files name busybox:latest. If the hub does not answer, a registry on loopback stands in as its mirror.
choose_image_source() {
  local code start
  start=$(now_ms)
  mirror=
  code=$(curl -s -o /dev/null -w '%{http_code}' --connect-timeout 5 --max-time 10 https://registry-1.docker.io/v2/ || true)
  case $code in
    200 | 401) done_line "docker.io can be reached: busybox:latest comes from there" "$start"; return ;;
  esac
  need_registry_packages
  install_missing
  ensure_busybox_image
  start_registry "$work/registry"
  mirror=http://$registry
  step push "fill the registry on loopback" push_busybox "$registry"
  done_line "docker.io can't be reached: busybox:latest is made from Debian's busybox-static, served by $mirror" "$start"
}

# Nomad takes a plugin's whole block from the last file that has one.
write_agent_config() {
  cat <<HCL
ports {
  http = $port
  rpc  = $((port + 1))
  serf = $((port + 2))
}

plugin "litegix-fc-driver" {
  config {
    vmm              = "$vmm"
    rootfs_base_path = "$base"
    ${FIRECRACKER:+firecracker_path = \"$FIRECRACKER\"}
    ${JAILER:+jailer_path = \"$JAILER\"}

    registry "docker.io" {
      mirrors = [${mirror:+\"$mirror\"}]
    }
  }
}
HCL
}

# "auto" takes nothing but Firecracker on a machine that has one. The example also runs without a usable KVM.
choose_vmm() {
  local start why options
  start=$(now_ms)
  [ "$vmm" = auto ] || return 0
  find_firecracker
  [ -n "$firecracker" ] || return 0
  options=(--firecracker-path "$firecracker" ${jailer:+--jailer-path "$jailer"} --rootfs-base-path "$base")
  if ! why=$("$plugin_dir/litegix-fc-driver" doctor "${options[@]}"); then
    vmm=qemu
    done_line "Firecracker can't be used, so QEMU runs the VMs: ${why%%;*}" "$start"
  fi
}

start_agent() {
  local start
  start=$(now_ms)
  require_free_ports
  write_agent_config >"$work/agent.hcl"
  unset NOMAD_TOKEN NOMAD_NAMESPACE NOMAD_REGION NOMAD_CACERT NOMAD_CLIENT_CERT NOMAD_CLIENT_KEY
  export NOMAD_ADDR=http://127.0.0.1:$port
  # A session of its own: --keep leaves it running when this terminal goes.
  setsid "$nomad" agent -dev -config="$project/example/agent.hcl" -config="$work/agent.hcl" -plugin-dir="$plugin_dir" \
    >"$work/agent.log" 2>&1 </dev/null &
  agent_pid=$!
  wait_for "the agent to answer" 60 agent_is_ready
  done_line "Nomad agent on $NOMAD_ADDR" "$start"
}

agent_is_ready() {
  kill -0 "$agent_pid" 2>/dev/null || fail "the Nomad agent ended: $(agent_complaint)"
  "$nomad" node status -self -t '{{.Status}}' 2>/dev/null | grep -q ready
}

agent_complaint() {
  grep -m 3 -E '^panic:|^==> Error|\[ERROR\]' "$work/agent.log" || tail -n 3 "$work/agent.log"
}

wait_for_driver() {
  local start facts
  start=$(now_ms)
  driver_facts='{{with index .Drivers "litegix-fc-driver"}}{{if .Healthy}}healthy{{else}}{{.HealthDescription}}{{end}}{{end}}'
  if ! wait_quietly 60 driver_is_healthy; then
    fail "the driver is not healthy: $("$nomad" node status -self -t "$driver_facts")"
  fi
  facts=$("$nomad" node status -self -t '{{range $k, $v := .Attributes}}{{$k}}={{$v}}{{"\n"}}{{end}}')
  fact() { sed -n "s/^driver\.litegix-fc-driver\.$1=//p" <<<"$facts"; }
  done_line "driver $(fact version) is healthy: $(fact vmm) $(fact vmm_version), $(fact acceleration), kernel $(fact kernel_version)" "$start"
  printf '        %s\n' "$(fact vmm_reason)"
}

driver_is_healthy() { [ "$("$nomad" node status -self -t "$driver_facts" 2>/dev/null)" = healthy ]; }

# wait_quietly SECONDS COMMAND...
wait_quietly() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    [ "$SECONDS" -lt "$deadline" ] || return 1
    sleep 0.2
  done
}

# wait_for "what" SECONDS COMMAND...
wait_for() {
  local what=$1 limit=$2
  shift 2
  wait_quietly "$limit" "$@" || fail "waited $limit s for $what"
}

# Stops jobs, agent and registry; sets $left_behind and fails when a VM outlives them. Safe to call twice.
clean_up() {
  local job allocations=
  if [ -n "$agent_pid" ] && kill -0 "$agent_pid" 2>/dev/null; then
    allocations=$("$nomad" operator api /v1/allocations 2>/dev/null | grep -o '"ID":"[0-9a-f-]\{36\}"' | cut -d'"' -f4 || true)
    for job in simple-firecracker detailed-test exec-test; do
      timeout 60 "$nomad" job stop -purge -yes "$job" >>"$work/stop.log" 2>&1 || true
    done
    wait_quietly 30 no_machines "$allocations" || true
    stop_process INT "$agent_pid"
  fi
  # A shell's background processes ignore SIGINT unless they ask for it, as Nomad does.
  [ -z "$registry_pid" ] || stop_process TERM "$registry_pid"
  agent_pid=
  registry_pid=
  no_machines "$allocations" || remove_machines "$allocations"
}

stop_process() {
  kill -"$1" "$2" 2>/dev/null || return 0
  wait_quietly 20 process_is_gone "$2" || kill -KILL "$2" 2>/dev/null || true
}

process_is_gone() {
  ! kill -0 "$1" 2>/dev/null || grep -q '^State:[[:space:]]*Z' "/proc/$1/status" 2>/dev/null
}

# The directories of VMs that belong to these allocations.
machines_of() {
  local allocation
  for allocation in $1; do
    grep -ls "$allocation" "$base"/vms/*/machine.json 2>/dev/null | sed 's:/machine.json$::' || true
  done
}

no_machines() { [ -z "$(machines_of "$1")" ]; }

# Ends the VMs of our allocations by the pids in their records. It runs only if the driver failed to end them.
remove_machines() {
  local directory pid
  left_behind="the driver left VMs behind (removed now):"
  for directory in $(machines_of "$1"); do
    left_behind+=" $directory"
    for pid in $(grep -o '"\(shim\|vmm\)_pid": *[0-9]*' "$directory/shim.json" 2>/dev/null | grep -o '[0-9]*$' || true); do
      # A pid alone may have been given to somebody else.
      if grep -qsF "$directory" "/proc/$pid/cmdline"; then kill -KILL "$pid" 2>/dev/null || true; fi
    done
    rm -rf "$directory"
  done
  return 1
}

# On every exit. Logs stay when something failed.
finish() {
  local status=$1
  trap - EXIT INT TERM HUP
  set +e
  if [ "$status" -ne 0 ]; then
    printf '        logs: %s%s and %s\n' "$([ ! -f "$work/agent.log" ] || printf '%s (the agent), ' "$work/agent.log")" "$work" "$logs" >&2
    clean_up || printf '        %s\n' "$left_behind" >&2
  elif [ "$keep" != yes ]; then
    rm -rf "$work"
  fi
  exit "$status"
}

print_what_to_try() {
  cat <<TEXT

The agent runs on $NOMAD_ADDR, its log is $work/agent.log. To try:

  export NOMAD_ADDR=$NOMAD_ADDR
  $nomad job status
  $nomad alloc logs $alloc
  $nomad alloc exec $alloc hostname
  $nomad alloc exec -i -t $alloc /bin/sh
  $nomad job run $project/example/simple-test.nomad

To end it:

  $nomad job stop -purge exec-test && kill -INT $agent_pid${registry_pid:+ && kill $registry_pid} && rm -rf $work

TEXT
}
