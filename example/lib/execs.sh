# The kinds of `nomad alloc exec` that example/test.sh runs, with the expected answers.

run_all_execs() {
  exec_case "hostname" '^[A-Za-z0-9-]+$' -- hostname
  [ "$(cat "$work/exec.out")" != "$(hostname)" ] || fail "exec hostname: gave the host's name, not the VM's"
  exec_case "ps aux" '^ *PID +USER' '^ *1 .*/bin/sh -c' 'sleep 3600' -- ps aux
  exec_case "ls -la /" ' bin$' ' etc$' ' proc$' ' tmp$' -- ls -la /
  exec_case "cat /proc/meminfo" '^MemTotal: +[0-9]+ kB' -- cat /proc/meminfo
  expect_memory 256
  exec_case "env" '^GREETING=hello$' '^NOMAD_JOB_NAME=exec-test$' "^NOMAD_ALLOC_ID=$alloc\$" '^PATH=.*/bin' -- env
  exec_exit_code
  exec_stdin
  exec_terminal
}

# exec_case "title" PATTERN... -- COMMAND...: each extended regular expression must match a line of standard output.
exec_case() {
  local title=$1 patterns=() pattern start status=0
  shift
  while [ "$1" != -- ]; do patterns+=("$1"); shift; done
  shift
  start=$(now_ms)
  timeout 60 "$nomad" alloc exec "$alloc" "$@" >"$work/exec.out" 2>"$work/exec.err" </dev/null || status=$?
  [ "$status" -eq 0 ] || fail "exec $title: exit code $status, $(cat "$work/exec.err")"
  [ ! -s "$work/exec.err" ] || fail "exec $title: standard error is not empty: $(head -n 3 "$work/exec.err")"
  for pattern in "${patterns[@]}"; do
    grep -Eq -- "$pattern" "$work/exec.out" || fail "exec $title: nothing matches '$pattern' in: $(head -n 20 "$work/exec.out")"
  done
  done_line "exec $title" "$start"
  head -n 4 "$work/exec.out" | sed 's/^/        | /'
}

# expect_memory MIB: the guest sees a little less than the VM has.
expect_memory() {
  local total=$(($(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' "$work/exec.out") / 1024))
  [ "$total" -le "$1" ] && [ "$total" -ge $(($1 * 3 / 5)) ] || fail "exec cat /proc/meminfo: $total MiB in a VM of $1 MiB"
}

exec_exit_code() {
  local start status=0
  start=$(now_ms)
  timeout 60 "$nomad" alloc exec "$alloc" /bin/sh -c 'echo out; echo err >&2; exit 43' >"$work/exec.out" 2>"$work/exec.err" </dev/null || status=$?
  [ "$status" -eq 43 ] || fail "exec exit code: got $status, not 43: $(cat "$work/exec.err")"
  [ "$(cat "$work/exec.out")" = out ] || fail "exec exit code: standard output is '$(cat "$work/exec.out")', not 'out'"
  grep -qx err "$work/exec.err" || fail "exec exit code: standard error is '$(cat "$work/exec.err")', not 'err'"
  done_line "exec: exit code 43 comes through, standard output and error apart" "$start"
}

exec_stdin() {
  local start count
  start=$(now_ms)
  count=$(seq 1 1000 | timeout 60 "$nomad" alloc exec -i "$alloc" wc -l) || fail "exec -i: wc -l did not end at the end of its input"
  [ "$((count))" -eq 1000 ] || fail "exec -i: wc -l counted $count lines of 1000"
  done_line "exec -i: 1000 lines of standard input, closed at its end" "$start"
}

# A real terminal of its own (util-linux's script makes it) around `nomad alloc exec -i -t`, resized in the middle.
exec_terminal() {
  local start script_pid status=0
  start=$(now_ms)
  mkfifo "$work/keys"
  script -q -f -e -c "stty rows 24 cols 80; tty >'$work/tty'; exec '$nomad' alloc exec -i -t '$alloc' /bin/sh" \
    "$work/terminal.log" <"$work/keys" >/dev/null 2>&1 &
  script_pid=$!
  exec 9>"$work/keys"
  type_until "echo size=\$(stty size)" 'size=24 80'
  stty -F "$(cat "$work/tty")" rows 50 cols 100
  type_until "echo size=\$(stty size)" 'size=50 100'
  type_until "tty" '^/dev/pts/'
  printf 'exit 5\n' >&9
  wait_quietly 20 process_is_gone "$script_pid" || fail "exec -i -t: the shell did not end at 'exit 5'; see $work/terminal.log"
  wait "$script_pid" || status=$?
  exec 9>&-
  [ "$status" -eq 5 ] || fail "exec -i -t: exit code $status, not 5; see $work/terminal.log"
  done_line "exec -i -t /bin/sh: a terminal of 24x80, resized to 50x100, exit code 5" "$start"
}

# type_until LINE PATTERN: types LINE again until PATTERN shows; the shell may not listen yet, a resize takes its time.
type_until() {
  local deadline=$((SECONDS + 60))
  until grep -Eq -- "$2" "$work/terminal.log" 2>/dev/null; do
    [ "$SECONDS" -lt "$deadline" ] || fail "exec -i -t: no '$2' after '$1'; see $work/terminal.log"
    printf '%s\n' "$1" >&9
    wait_quietly 2 grep -sEq -- "$2" "$work/terminal.log" || true
  done
}
