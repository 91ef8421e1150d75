# A registry on loopback with a busybox image: Debian's docker-registry, filled by umoci and skopeo from busybox-static.

need_registry_packages() {
  need docker-registry docker-registry
  need skopeo skopeo
  need umoci umoci
  need busybox-static /bin/busybox
  need curl curl
}

# Sets $busybox_layout to an OCI image layout with the image "latest", made once for each busybox.
ensure_busybox_image() {
  local hash
  hash=$(sha256sum /bin/busybox | cut -c1-12)
  busybox_layout=$cache/busybox-image/$hash
  [ -f "$busybox_layout/index.json" ] || step busybox-image "make a busybox image from Debian's busybox-static" make_busybox_image "$busybox_layout"
}

make_busybox_image() {
  local layout=$1 work root applet
  mkdir -p "${layout%/*}"
  work=$(mktemp -d "${layout%/*}/.make-XXXXXX")
  root=$work/root
  mkdir -p "$root"/{bin,dev,etc,home,root,tmp,usr/bin,usr/sbin,var/spool/mail,var/www}
  chmod 700 "$root/root"
  chmod 1777 "$root/tmp"
  cp /bin/busybox "$root/bin/busybox"
  chmod 755 "$root/bin/busybox"
  # Hard links, as in the image of the same name on the hub.
  for applet in $(/bin/busybox --list); do
    [ "$applet" = busybox ] || ln "$root/bin/busybox" "$root/bin/$applet"
  done
  printf '%s\n' 'root:x:0:0:root:/root:/bin/sh' 'daemon:x:1:1:daemon:/usr/sbin:/bin/false' \
    'www-data:x:33:33:www-data:/var/www:/bin/false' 'nobody:x:65534:65534:nobody:/home:/bin/false' >"$root/etc/passwd"
  printf '%s\n' 'root:x:0:' 'daemon:x:1:' 'www-data:x:33:' 'nogroup:x:65534:' >"$root/etc/group"
  umoci init --layout "$work/layout"
  umoci new --image "$work/layout:latest"
  umoci insert --image "$work/layout:latest" "$root" /
  umoci config --image "$work/layout:latest" --config.cmd sh \
    --config.env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
  umoci gc --layout "$work/layout"
  mv "$work/layout" "$layout"
  rm -rf "$work"
}

# start_registry DIRECTORY: serves DIRECTORY/storage; sets $registry_pid and $registry (host:port).
start_registry() {
  local directory=$1 deadline
  mkdir -p "$directory"
  cat >"$directory/registry.yml" <<YAML
version: 0.1
log: { level: info, formatter: text, accesslog: { disabled: true } }
storage: { filesystem: { rootdirectory: $directory/storage } }
http: { addr: "127.0.0.1:0" }
YAML
  # A session of its own: example/test.sh --keep leaves it running when this terminal goes.
  setsid docker-registry serve "$directory/registry.yml" >"$directory/registry.log" 2>&1 </dev/null &
  registry_pid=$!
  deadline=$((SECONDS + 15))
  until registry=$(sed -n 's/.*listening on \(127\.0\.0\.1:[0-9]*\).*/\1/p' "$directory/registry.log") && [ -n "$registry" ]; do
    kill -0 "$registry_pid" 2>/dev/null && [ "$SECONDS" -lt "$deadline" ] || fail "docker-registry does not start; see $directory/registry.log"
    sleep 0.1
  done
}

# push_busybox REGISTRY
push_busybox() {
  skopeo --insecure-policy copy --quiet --dest-tls-verify=false --format v2s2 \
    "oci:$busybox_layout:latest" "docker://$1/library/busybox:latest"
}
