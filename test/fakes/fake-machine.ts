// A VM for tests of its task: it runs until the test ends it, and no agent answers in it.
import type { TaskMachine } from "../../src/driver/task/task.ts";
import { GuestClient } from "../../src/guest/client.ts";
import { sampleRecord } from "./sample-record.ts";

export function fakeMachine(parts: Partial<TaskMachine> = {}): TaskMachine {
  return {
    record: sampleRecord,
    guest: new GuestClient({ vsockPath: "/nowhere/v.sock" }),
    exited: new Promise(() => {}),
    ended: new AbortController().signal,
    hostProcesses: async () => [],
    markKilled: async () => {},
    kill: async () => {},
    destroy: async () => {},
    [Symbol.dispose]: () => {},
    ...parts,
  };
}
