# A kernel for guests: Debian's newest cloud kernel, unpacked, not installed.

kernel_package=linux-image-cloud-amd64

# Puts the kernel's folder (boot/, lib/modules/) into $kernel_directory.
ensure_kernel() {
  kernel_directory=$(newest_cached_kernel)
  if [ -z "$kernel_directory" ]; then
    command -v apt-get >/dev/null || fail "no apt-get to download $kernel_package with: set vmlinux_path in the plugin's config"
    if [ -z "$(real_kernel_package)" ]; then
      [ "$(id -u)" -eq 0 ] || fail "apt knows no $kernel_package: run apt-get update as root first"
      apt_update
    fi
    step kernel "download Debian's cloud kernel for guests" download_kernel
    kernel_directory=$(newest_cached_kernel)
  fi
}

newest_cached_kernel() {
  mkdir -p "$cache/kernel"
  # Only a finished download has its final name.
  find "$cache/kernel" -mindepth 1 -maxdepth 1 -type d ! -name '.*' | sort -V | tail -n 1
}

# The package that the meta package stands for, e.g. linux-image-6.1.0-44-cloud-amd64.
real_kernel_package() {
  apt-cache depends "$kernel_package" 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-.*-cloud-amd64\)$/\1/p' | head -n 1
}

download_kernel() {
  local package work
  package=$(real_kernel_package)
  [ -n "$package" ]
  work=$(mktemp -d "$cache/kernel/.download-XXXXXX")
  cd "$work"
  # The lists may name a version that the archive has replaced since.
  apt-get download "$package" || { apt-get update && apt-get download "$package"; }
  dpkg-deb -x ./*.deb unpacked
  mv unpacked "$cache/kernel/${package#linux-image-}"
  rm -rf "$work"
}

# install_kernel BASE: makes BASE/kernels/RELEASE, where the driver looks, unless the system itself has a cloud kernel. A copy:
# an installed driver must not depend on somebody's cache.
install_kernel() {
  local base=$1 name
  for name in /boot/vmlinuz-*-cloud-amd64 "$base"/kernels/*/boot/vmlinuz-*-cloud-amd64; do
    [ ! -f "$name" ] || return 0
  done
  ensure_kernel
  name=$(basename "$kernel_directory")
  mkdir -p "$base/kernels"
  rm -rf "$base/kernels/.$name"
  cp -a --reflink=auto "$kernel_directory" "$base/kernels/.$name"
  mv "$base/kernels/.$name" "$base/kernels/$name"
}

rig_package=linux-image-amd64

# Puts the folder of the kernel that test/rig's machine boots into $rig_kernel: Debian's generic one, which brings KVM and 9p.
ensure_rig_kernel() {
  rig_kernel=$cache/rig-kernel
  [ ! -d "$rig_kernel" ] || return 0
  require_apt "$rig_package"
  apt_update
  step rig-kernel "download Debian's generic kernel for the rig" download_rig_kernel
}

download_rig_kernel() {
  local package work
  package=$(apt-cache depends "$rig_package" | sed -n 's/^ *Depends: \(linux-image-.*-amd64\)$/\1/p' | head -n 1)
  [ -n "$package" ]
  work=$(mktemp -d "$cache/.rig-kernel-XXXXXX")
  cd "$work"
  apt-get download "$package"
  dpkg-deb -x ./*.deb unpacked
  depmod -b unpacked "$(ls unpacked/lib/modules)"
  mv unpacked "$rig_kernel"
  rm -rf "$work"
}
