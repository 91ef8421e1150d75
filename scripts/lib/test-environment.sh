# Sourced by what runs the driver in a real agent: builds it, gets the rest, and says in LITEGIX_E2E_* where everything is.
[ "$(id -u)" -eq 0 ] || fail "a Nomad agent that starts VMs must run as root: run this as root"
cd "$project"

need qemu-system-x86 qemu-system-x86_64
need squashfs-tools mksquashfs
need e2fsprogs mkfs.ext4
need iproute2 ip
need nftables nft
need socat socat
need iptables iptables
need containernetworking-plugins /usr/lib/cni/bridge
need bsdutils script
need lz4 lz4
need openssl openssl
# Debian's package starts it where systemd runs, and nobody asked for a firewall on their host.
if [ ! -d /run/systemd/system ]; then
  need firewalld /usr/sbin/firewalld
  need dbus-daemon dbus-daemon
fi
need_registry_packages
install_missing
scripts/build.sh
ensure_kernel
ensure_nomad
ensure_busybox_image

export LITEGIX_E2E_NOMAD=$nomad
export LITEGIX_E2E_KERNEL=$kernel_directory
export LITEGIX_E2E_BUSYBOX=$busybox_layout

# "auto" takes nothing but Firecracker on a machine that has one. Tests run without a usable KVM, too.
if [ -z "${LITEGIX_E2E_VMM:-}" ]; then
  find_firecracker
  if [ -n "$firecracker" ] && ! kvm_runs_guests; then
    printf 'vmm     Firecracker is installed, but runs no guests here: tests that leave the choice open run on QEMU\n'
    export LITEGIX_E2E_VMM=qemu
  fi
fi
