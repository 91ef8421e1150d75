# Debian packages: only what is missing, one apt-get update per run.

missing_packages=()
apt_updated=no

# need PACKAGE THING...: PACKAGE is missing when one of its THINGs (a command, or a path) is.
need() {
  local package=$1 thing
  shift
  for thing in "$@"; do
    if ! is_there "$thing"; then
      missing_packages+=("$package")
      return
    fi
  done
}

is_there() {
  case $1 in
    /*) [ -e "$1" ] ;;
    *) command -v "$1" >/dev/null ;;
  esac
}

# Installs what `need` found missing.
install_missing() {
  [ ${#missing_packages[@]} -gt 0 ] || return 0
  install_packages "${missing_packages[@]}"
  missing_packages=()
}

install_packages() {
  require_apt "$@"
  apt_update
  step apt-install "install Debian packages: $*" \
    env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"
}

require_apt() {
  command -v apt-get >/dev/null ||
    fail "not installed: $*; these are Debian's names and there is no apt-get here: install them by other means"
  [ "$(id -u)" -eq 0 ] || fail "not installed: $*; run this as root, or: sudo apt-get install $*"
}

apt_update() {
  [ "$apt_updated" = no ] || return 0
  step apt-update "read Debian's package lists" apt-get update -q
  apt_updated=yes
}

# The version apt would install, without epoch and Debian revision; empty when there is none.
candidate_version() {
  apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: *\([0-9]*:\)\{0,1\}\([0-9.]*\).*/\2/p'
}
