# A batch job: one microVM that prints a line and ends.
job "simple-firecracker" {
  type = "batch"

  group "simple" {
    # A failing example ends at once.
    restart {
      attempts = 0
      mode     = "fail"
    }
    reschedule {
      attempts  = 0
      unlimited = false
    }

    task "hello" {
      driver = "litegix-fc-driver"

      config {
        image     = "busybox:latest"
        vpu_count = 1
        mem_size  = 256
        command   = "/bin/sh"
        # The driver splits one string into words as a shell does: these are two arguments.
        args = "-c 'echo hello from a microVM'"
      }

      resources {
        cpu    = 100
        memory = 256
      }
    }
  }
}
