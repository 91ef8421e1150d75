// The thread of HostileGuests: plays each guest that it is ordered to, and reports every connection.
import { parentPort } from "node:worker_threads";
import { behaviours, HostileGuest } from "./hostile-guest.ts";

/** An order to the thread: a guest to play or, without a behaviour, one to end. */
export interface Order {
  readonly socketPath: string;
  readonly behaviour?: string;
}

/** A report of the thread: the order is done or, with a count, a guest got another connection. */
export interface Report {
  readonly socketPath: string;
  readonly connections?: number;
}

const port = parentPort;
if (port === null) throw new Error("this is a worker's file");
const guests = new Map<string, HostileGuest>();

port.on("message", async ({ socketPath, behaviour: name }: Order) => {
  if (name === undefined) {
    await guests.get(socketPath)?.[Symbol.asyncDispose]();
  } else {
    const behaviour = behaviours.get(name);
    if (behaviour === undefined) throw new Error(`no behaviour "${name}"`);
    const guest = await HostileGuest.start({
      socketPath,
      behaviour: (socket) => {
        port.postMessage({ socketPath, connections: guest.connections } satisfies Report);
        behaviour(socket);
      },
    });
    guests.set(socketPath, guest);
  }
  port.postMessage({ socketPath } satisfies Report);
});
