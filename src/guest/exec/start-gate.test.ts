import assert from "node:assert/strict";
import { test } from "node:test";
import { StartGate } from "./start-gate.ts";

const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test("eight enter at a time, the others wait in order; a caller that gives up costs the others no place", async () => {
  const gate = new StartGate();
  const { signal } = new AbortController();
  const inside = await Promise.all(Array.from({ length: 8 }, () => gate.enter(signal)));
  const order: string[] = [];
  const impatient = new AbortController();
  const gaveUp = assert.rejects(gate.enter(impatient.signal), /enough/);
  const second = gate.enter(signal).then((leave) => {
    order.push("second");
    return leave;
  });
  const third = gate.enter(signal).then(() => order.push("third"));
  impatient.abort(new Error("enough"));
  await gaveUp;
  inside[0]?.();
  inside[0]?.();
  await settled();
  assert.deepEqual(order, ["second"]);
  (await second)();
  await third;
  assert.deepEqual(order, ["second", "third"]);
});
