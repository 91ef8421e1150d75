import assert from "node:assert/strict";
import { describe, it, mock } from "node:test";
import { fakeMachine } from "../../../test/fakes/fake-machine.ts";
import type { MachineExit } from "../../machine/records/exit-record.ts";
import { Task } from "./task.ts";

function taskWith(options: { ended: boolean }): { task: Task; destroyed: () => boolean } {
  let destroyed = false;
  const exit: MachineExit = { kind: "task", exitCode: 0, signal: 0, oomKilled: false, oomKills: 0 };
  const machine = fakeMachine({
    ...(options.ended ? { exited: Promise.resolve(exit) } : {}),
    destroy: async () => {
      destroyed = true;
    },
  });
  const task = new Task({ id: "a/main/1", name: "main", machine, startedAt: new Date(0), stopSignal: "" });
  return { task, destroyed: () => destroyed };
}

/** Resolves once everything that waits for no timer has run. */
const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe("destroying a task with an exec session", () => {
  it("that has ended: its VM is left until the session's last output is here", async () => {
    const { task, destroyed } = taskWith({ ended: true });
    await task.exited;
    const fetched = task.sessionOpened();
    const destroying = task.destroy();
    await settled();
    assert.equal(destroyed(), false);
    fetched();
    await destroying;
    assert.equal(destroyed(), true);
  });

  it("that has ended, and whose guest never reports the session's end: five seconds", async () => {
    mock.timers.enable({ apis: ["setTimeout"] });
    try {
      const { task, destroyed } = taskWith({ ended: true });
      await task.exited;
      task.sessionOpened();
      const destroying = task.destroy();
      mock.timers.tick(4_999);
      await settled();
      assert.equal(destroyed(), false);
      mock.timers.tick(1);
      await destroying;
      assert.equal(destroyed(), true);
    } finally {
      mock.timers.reset();
    }
  });

  it("that runs: its further output is not waited for", async () => {
    const { task, destroyed } = taskWith({ ended: false });
    task.sessionOpened();
    await task.destroy();
    assert.equal(destroyed(), true);
  });
});
