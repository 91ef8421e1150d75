# A batch job: one microVM that prints a line and ends.
job "simple-firecracker" {
  type = "batch"

  group "simple" {
    # An example that fails should say so at once.
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
        # One string is split as a shell splits words: these are two arguments.
        args = "-c 'echo hello from a microVM'"
      }

      resources {
        cpu    = 100
        memory = 256
      }
    }
  }
}
