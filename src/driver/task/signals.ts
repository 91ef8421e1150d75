// Signal names as Nomad sends them, to the guest's numbers (the guest runs on the host's architecture).
import { constants } from "node:os";
import { UnknownSignalError } from "../errors.ts";

const lastSignal = 64;

/** Takes "SIGHUP", "HUP", "hup" and "1", and "SIGNULL", which only probes if the task exists. Fails with UnknownSignalError. */
export function signalNumber(name: string): number {
  if (/^\d+$/.test(name)) {
    const number = Number(name);
    if (number >= 1 && number <= lastSignal) return number;
    throw new UnknownSignalError({ signal: name });
  }
  const upper = name.toUpperCase();
  const full = upper.startsWith("SIG") ? upper : `SIG${upper}`;
  if (full === "SIGNULL") return 0;
  const realtime = /^SIGRT(MIN|MAX)(?:([+-])(\d+))?$/.exec(full);
  if (realtime !== null) {
    const base = realtime[1] === "MIN" ? 34 : lastSignal;
    const number = base + Number(`${realtime[2] ?? ""}${realtime[3] ?? 0}`);
    if (number >= 34 && number <= lastSignal) return number;
    throw new UnknownSignalError({ signal: name });
  }
  const number = (constants.signals as Readonly<Record<string, number | undefined>>)[full];
  if (number === undefined) throw new UnknownSignalError({ signal: name });
  return number;
}
