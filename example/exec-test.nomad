# A service that stays up. Run commands in it:
#
#   nomad alloc exec ALLOC hostname
#   nomad alloc exec -i -t ALLOC /bin/sh
#
# Ask it over the network, at the address and port that this prints:
#
#   nomad alloc status ALLOC
job "exec-test" {
  type = "service"

  group "exec" {
    restart {
      attempts = 0
      mode     = "fail"
    }
    reschedule {
      attempts  = 0
      unlimited = false
    }

    network {
      port "http" {
        to = 8080
      }
    }

    task "shell" {
      driver = "litegix-fc-driver"

      env {
        GREETING = "hello"
      }

      config {
        image     = "busybox:latest"
        vpu_count = 1
        mem_size  = 256
        ports     = ["http"]
        command   = "/bin/sh"
        args = ["-c", <<-EOT
          trap 'echo stopped; exit 0' TERM
          mkdir -p /www
          echo "hello from $(hostname)" > /www/index.html
          httpd -p 8080 -h /www
          echo ready
          while true; do sleep 3600 & wait; done
          EOT
        ]
      }

      resources {
        cpu    = 100
        memory = 256
      }
    }
  }
}
