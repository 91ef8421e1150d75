// Unix sockets.
import { connect } from "node:net";

/**
 * True if a process listens on it. Its file does not show that: it exists from bind on, and a busy host may listen much
 * later.
 */
export async function isListening(path: string): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const socket = connect(path);
  socket.once("connect", () => resolve(true));
  socket.once("error", () => resolve(false));
  try {
    return await promise;
  } finally {
    socket.destroy();
  }
}
