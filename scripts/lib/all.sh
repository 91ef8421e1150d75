# Sources the library.
library=$(dirname "${BASH_SOURCE[0]}")
. "$library/common.sh"
. "$library/packages.sh"
. "$library/toolchain.sh"
. "$library/kernel.sh"
. "$library/nomad.sh"
. "$library/registry.sh"
. "$library/firecracker.sh"
