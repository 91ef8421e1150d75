# An agent for trying the driver out:
#
#   nomad agent -dev -config=example/agent.hcl -plugin-dir=/opt/nomad/plugins

client {
  enabled = true

  options = {
    # Without these the start waits for clouds that are not there.
    "fingerprint.denylist" = "env_aws,env_gce,env_azure,env_digitalocean"
  }
}

# The label is the file's name in the plugin directory.
plugin "litegix-fc-driver" {
  config {
    # "auto" takes Firecracker where KVM runs guests, else QEMU; "firecracker" and "qemu" insist.
    vmm = "auto"

    # Images, kernels and VMs lie below it.
    rootfs_base_path = "/var/lib/litegix-fc-driver"

    # Mirrors are asked in order, the registry itself last.
    registry "docker.io" {
      mirrors = []
    }
  }
}
