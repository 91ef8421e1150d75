# Every script starts from this: where things are, and steps that say in one line what they do and how long it took.
# Source it first; it sets -euo pipefail.
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# Everything slow to get lies outside the checkout, so that a clean clone is ready in seconds.
cache=${LITEGIX_CACHE:-${HOME:-/root}/.cache/litegix-fc-driver}
logs=$cache/logs
mkdir -p "$logs"
export LITEGIX_CACHE=$cache
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
# mkfs and friends are not on every user's PATH.
PATH=$project/node_modules/.bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH

fail() {
  printf 'FAILED  %s\n' "$*" >&2
  exit 1
}

now_ms() { date +%s%3N; }

seconds_since() {
  local ms=$(($(now_ms) - $1))
  printf '%d.%d s' $((ms / 1000)) $((ms % 1000 / 100))
}

# step NAME "what" COMMAND...: runs COMMAND with its output in a log; one line when done, the log's end when it fails.
# COMMAND runs in a subshell: what it sets is gone afterwards. Not for use in a condition (errexit would be off inside).
step() {
  local name=$1 what=$2 log=$logs/$1.log start status
  shift 2
  start=$(now_ms)
  set +e
  (
    set -e
    "$@"
  ) >"$log" 2>&1 </dev/null
  status=$?
  set -e
  if [ "$status" -ne 0 ]; then
    tail -n 25 "$log" | sed 's/^/        /' >&2
    fail "$what ($(seconds_since "$start")); the whole output is in $log"
  fi
  done_line "$what" "$start"
}

done_line() { printf 'ok      %s (%s)\n' "$1" "$(seconds_since "$2")"; }

# at_least HAVE WANT: compares dotted versions.
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }
