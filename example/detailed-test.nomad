# A batch job that prints the parts of its VM: kernel, CPUs, memory, disks, processes, network.
job "detailed-test" {
  type = "batch"

  group "detailed" {
    restart {
      attempts = 0
      mode     = "fail"
    }
    reschedule {
      attempts  = 0
      unlimited = false
    }

    task "report" {
      driver = "litegix-fc-driver"

      config {
        image     = "busybox:latest"
        # Virtual CPUs of the VM; mem_size is its memory in MiB.
        vpu_count = 2
        mem_size  = 512
        command   = "/bin/sh"
        args = ["-c", <<-EOT
          echo '== kernel'
          uname -a
          echo '== cpu'
          grep -c '^processor' /proc/cpuinfo
          grep -m 1 'model name' /proc/cpuinfo
          echo '== memory'
          head -n 3 /proc/meminfo
          echo '== disks'
          df -h /
          cat /proc/partitions
          echo '== processes'
          ps aux
          echo '== network'
          hostname
          ifconfig -a
          route -n
          cat /etc/hosts
          echo '== done'
          EOT
        ]
      }

      resources {
        cpu    = 200
        memory = 512
      }
    }
  }
}
