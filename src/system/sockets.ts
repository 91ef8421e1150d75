// Unix sockets.
import { connect } from "node:net";

/** Whether somebody listens on it. Its file does not tell: it is there from bind on, and a busy host comes to listen much later. */
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
