// The constants of bulk data that a benchmark chose, each with the one that moves it: `output`, `input` and `logs` are the parts
// of `make bench-exec`. Limits that only bound memory stay beside their code.

/** `input`. In a stream of pieces each one wakes up the guest. The queue coalesces the following pieces for this long. */
export const inputCoalesceMs = 2;
/** `input`. The queue coalesces up to this size: half of a frame's limit. */
export const inputCoalesceBytes = 32 * 1024;
/** `latency`. A terminal's keystrokes are smaller than this and not held back. */
export const inputBulkPieceBytes = 1024;

/**
 * QEMU only. Everything that can be emulated except the "fast" string moves. Kernel and C library copy with `rep movsb` if the CPU
 * claims that it is fast, but emulation copies byte by byte. Without the claims copies take a third of the time.
 */
export const emulatedCpu = "max,-erms,-fsrm";

/**
 * QEMU only; `output` 16.6 -> 22.0 MB/s, `logs` 29.9 -> 43.9 MB/s. The bytes that a guest may send on a connection before the host
 * has taken them; at most the buffer that Linux gives its own end. Newer releases of Linux send no more than that at once,
 * while the device reports room only once three quarters of its own buffer are used. With a larger buffer both sides would
 * wait. With the device's default (64 KiB) the guest waits after each packet.
 */
export const vsockWindowBytes = 256 * 1024;
