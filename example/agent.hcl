# An agent for trying the driver:
#
#   nomad agent -dev -config=example/agent.hcl -plugin-dir=/opt/nomad/plugins

client {
  enabled = true

  options = {
    # Without this list, the agent's start waits for clouds that do not answer.
    "fingerprint.denylist" = "env_aws,env_gce,env_azure,env_digitalocean"
  }
}

# The label must be the file's name in the plugin directory.
plugin "litegix-fc-driver" {
  config {
    # "auto" takes Firecracker if it is installed, else QEMU. The values "firecracker" and "qemu" allow only that program.
    vmm = "auto"

    # The folder of images, kernels and VMs.
    rootfs_base_path = "/var/lib/litegix-fc-driver"

    # The driver asks mirrors in order, and the registry itself last.
    registry "docker.io" {
      mirrors = []
    }
  }
}
