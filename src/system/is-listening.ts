// Whether somebody listens on a unix socket. Its file alone doesn't tell: it is there from bind on, and connections are refused
// until listen, which is later than one thinks where the host is busy.
import { connect } from "node:net";

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
