# PID 1 of the machine that nested-kvm.sh boots, once the root is in place: runs the command, keeps its status, ends the
# machine.
exec </dev/null >/dev/hvc0 2>&1
stty -F /dev/hvc0 raw -echo 2>/dev/null || true
# The kernel's own messages stay on the serial console.
echo 1 >/proc/sys/kernel/printk
(while echo alive >/dev/ttyS0; do sleep 5; done) &
modprobe -a tun bridge veth loop squashfs nf_tables nft_chain_nat nft_masq 2>/dev/null || true
bash /run/rig/command.sh
echo $? >/run/rig/status
sync
echo o >/proc/sysrq-trigger
sleep 60
