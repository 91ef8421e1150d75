// The yardstick: bytes between the host and a program in the guest over a bare vsock connection.
import { connect, type Socket } from "node:net";

/** The port of crates/sys/examples/bench-copy.rs. */
const port = 9999;

export interface BareCopyOptions {
  readonly vsockPath: string;
  readonly bytes: number;
}

/** A connection to the program, which begins once it has the nine bytes. */
async function dial(vsockPath: string): Promise<Socket> {
  const socket = connect(vsockPath);
  await new Promise((resolve, reject) => socket.once("connect", resolve).once("error", reject));
  socket.write(`CONNECT ${port}\n`);
  await new Promise((resolve) => socket.once("data", resolve));
  return socket;
}

function order(direction: "s" | "r", bytes: number): Buffer {
  const head = Buffer.alloc(9);
  head.write(direction);
  head.writeBigUInt64LE(BigInt(bytes), 1);
  return head;
}

/** Milliseconds for the bytes from the guest to the host. */
export async function bareOut(options: BareCopyOptions): Promise<number> {
  const { vsockPath, bytes } = options;
  const socket = await dial(vsockPath);
  const started = performance.now();
  socket.write(order("s", bytes));
  let seen = 0;
  await new Promise<void>((resolve) => {
    socket.on("data", (chunk: Buffer) => {
      seen += chunk.length;
      if (seen >= bytes) resolve();
    });
  });
  socket.destroy();
  return performance.now() - started;
}

/** Milliseconds for the bytes from the host to the guest. */
export async function bareIn(options: BareCopyOptions): Promise<number> {
  const { vsockPath, bytes } = options;
  const socket = await dial(vsockPath);
  const chunk = Buffer.alloc(64 << 10);
  const started = performance.now();
  socket.write(order("r", bytes));
  const received = new Promise((resolve) => socket.once("data", resolve));
  for (let left = bytes; left > 0; left -= chunk.length) {
    if (!socket.write(chunk.subarray(0, left))) await new Promise((resolve) => socket.once("drain", resolve));
  }
  await received;
  socket.destroy();
  return performance.now() - started;
}
