# Nomad: PATH first, then the cache, then the official release with its checksum verified, else built from the Go module.

nomad_version=1.11.3

# Sets $nomad to the program's path and $nomad_origin to where it is from.
ensure_nomad() {
  local built=$cache/nomad/$nomad_version/nomad
  nomad_origin=PATH
  if nomad=$(command -v nomad); then return 0; fi
  nomad=$built
  nomad_origin=$cache
  [ ! -x "$built" ] || return 0
  mkdir -p "${built%/*}"
  need curl curl
  need busybox-static /bin/busybox
  need ca-certificates /etc/ssl/certs/ca-certificates.crt
  install_missing
  if release_is_reachable; then
    step nomad "download Nomad $nomad_version and verify its checksum" download_nomad "$built"
  else
    printf '        %s\n' "releases.hashicorp.com can't be reached: building Nomad from its Go module (a few minutes)"
    ensure_go
    step nomad "build Nomad $nomad_version" build_nomad "$built"
  fi
}

releases=https://releases.hashicorp.com/nomad/$nomad_version

release_is_reachable() {
  curl -fsS --connect-timeout 5 --max-time 15 -o /dev/null "$releases/nomad_${nomad_version}_SHA256SUMS" 2>/dev/null
}

download_nomad() {
  local work zip=nomad_${nomad_version}_linux_amd64.zip
  work=$(mktemp -d "$cache/nomad/.download-XXXXXX")
  cd "$work"
  curl -fsSL --connect-timeout 5 --max-time 600 -O "$releases/$zip" -O "$releases/nomad_${nomad_version}_SHA256SUMS"
  grep " $zip\$" "nomad_${nomad_version}_SHA256SUMS" | sha256sum -c -
  busybox unzip -q "$zip" nomad
  chmod 755 nomad
  mv nomad "$1"
  rm -rf "$work"
}

# The checksum database has no entry for Nomad's nested api module; go.sum pins it.
build_nomad() {
  cd "$project/scripts/nomad-build"
  env CGO_ENABLED=0 GOFLAGS=-mod=readonly GONOSUMDB=github.com/hashicorp/nomad/api \
    go build -trimpath -tags hashicorpmetrics -ldflags '-s -w' -o "$1.new" github.com/hashicorp/nomad
  mv "$1.new" "$1"
}
