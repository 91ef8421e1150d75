// Times to make and to remove a VM's default network, beside other VMs.
import { inspectNetwork } from "../../../src/network/inspect/inspect-network.ts";
import { makeInterface, Networks } from "../../../src/network/network.ts";
import type { NetworkPlan } from "../../../src/network/plan/network-plan.ts";
import { networkRequest } from "../../end-to-end/support/network-request.ts";
import { median } from "../median.ts";

const vms = 20;

async function timed(times: number[], step: () => Promise<void>): Promise<void> {
  const started = performance.now();
  await step();
  times.push(performance.now() - started);
}

/** Runs in its own namespace. */
export async function measureSetUp(): Promise<void> {
  const host = await inspectNetwork({ subnet: undefined });
  const plans: NetworkPlan[] = [];
  const networks = new Networks({ plans: async () => plans });
  const [interfaces, rules, removals]: [number[], number[], number[]] = [[], [], []];
  for (let vm = 0; vm < vms; vm++) {
    const request = networkRequest({ allocId: `${vm}`, hostPort: 20_000 + vm });
    using reserved = await networks.reserve({
      request,
      host,
      basePath: "/bench",
    });
    const { plan } = reserved;
    if (plan === undefined) throw new Error("no network");
    plans.push(plan);
    await timed(interfaces, () => makeInterface({ plan }));
    await timed(rules, () => networks.open({ plan }));
  }
  for (const plan of plans.splice(0)) await timed(removals, () => networks.detach(plan));
  const ms = (times: number[]): string => `${median(times).toFixed(1)} ms`;
  console.log(
    `set-up          interface ${ms(interfaces)}, then beside the boot rules and addresses ${ms(rules)}; ` +
      `removal ${ms(removals)} (medians of ${vms} VMs)`,
  );
}
