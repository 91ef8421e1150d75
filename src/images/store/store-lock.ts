// One holder at a time among all processes of this host: an abstract unix socket, which the kernel frees when its owner
// dies, so that there are no stale locks to judge.
import { createServer, type Server } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { digestHex, sha256 } from "../digest.ts";

const retryMs = 100;

/** Waits until `signal` aborts. Disposing of the returned object frees the lock. */
export async function acquireLock(options: {
  readonly name: string;
  readonly signal: AbortSignal;
}): Promise<AsyncDisposable> {
  const address = `\0litegix-${digestHex(sha256(options.name)).slice(0, 32)}`;
  for (;;) {
    options.signal.throwIfAborted();
    const server = await tryListen(address);
    if (server !== undefined) {
      return { [Symbol.asyncDispose]: () => new Promise<void>((resolve) => server.close(() => resolve())) };
    }
    await sleep(retryMs, undefined, { signal: options.signal });
  }
}

function tryListen(address: string): Promise<Server | undefined> {
  return new Promise((resolve, reject) => {
    const server = createServer((socket) => socket.destroy());
    server.once("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "EADDRINUSE") resolve(undefined);
      else reject(error);
    });
    server.listen(address, () => resolve(server));
  });
}
