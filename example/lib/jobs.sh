# Runs the example jobs for example/test.sh.

# run_job JOB FILE STATUS: sets $alloc; fails with the task's events if the job does not reach STATUS.
run_job() {
  local job=$1 file=$project/example/$2 wanted=$3
  "$nomad" job run -detach "$file" >"$work/$job.run" 2>&1 || fail "nomad job run $2: $(tail -n 5 "$work/$job.run")"
  alloc=
  wait_quietly 30 find_allocation "$job" || fail "job $job gets no allocation: $("$nomad" job status "$job" | tail -n 15)"
  wait_quietly 240 allocation_settles "$wanted" || fail "job $job is still $status after 240 s: $(task_events)"
  [ "$status" = "$wanted" ] || fail "job $job is $status: $(task_events)"
}

find_allocation() {
  alloc=$("$nomad" job allocs -t '{{range .}}{{.ID}}{{end}}' "$1" 2>/dev/null) && [ -n "$alloc" ]
}

# Waits for the wanted status, or for one that cannot become it.
allocation_settles() {
  status=$("$nomad" alloc status -t '{{.ClientStatus}}' "$alloc" 2>/dev/null || true)
  case $status in
    "$1" | complete | failed | lost) return 0 ;;
    *) return 1 ;;
  esac
}

task_events() {
  "$nomad" alloc status -t '{{range .TaskStates}}{{range .Events}}{{"\n"}}        {{.Type}}: {{.DisplayMessage}}{{end}}{{end}}' "$alloc"
}

# expect_log TEXT: Nomad ships the last bytes after the task's end.
expect_log() {
  wait_quietly 30 log_has "$1" || fail "the log of allocation $alloc has no '$1': $("$nomad" alloc logs "$alloc" 2>&1 | tail -n 5)"
}

log_has() { "$nomad" alloc logs "$alloc" >"$work/alloc.log" 2>/dev/null && grep -qF -- "$1" "$work/alloc.log"; }

show_log() { sed 's/^/        | /' "$work/alloc.log"; }

# The page of the VM at vm_address.
ask_vm() { wait_quietly 10 curl -sS -m 2 -o "$work/page" "http://$vm_address" && cat "$work/page"; }

find_vm_address() {
  vm_address=$("$nomad" alloc status -t '{{range .AllocatedResources.Shared.Ports}}{{.HostIP}}:{{.Value}}{{end}}' "$alloc")
}
