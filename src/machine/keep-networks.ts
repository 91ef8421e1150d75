// Keeps the rules of VMs' networks in force while the VMs run, even if other software flushes them.
import { setTimeout as delay } from "node:timers/promises";
import { TableWatch } from "../network/keep/table-watch.ts";
import type { Networks } from "../network/network.ts";
import type { Logger } from "../system/logger.ts";

/**
 * In the host's own namespace the kernel reports a flush at once; in allocations' namespaces the driver polls for it.
 */
const intervalMs = 15_000;
/** A start or an end of a VM is reported too, many times at once. */
const calmMs = 500;

/** Until `signal` aborts. Logs each failure and tries again. */
export async function keepNetworks(options: {
  networks: Networks;
  logger: Logger;
  signal: AbortSignal;
}): Promise<void> {
  const { networks, logger, signal } = options;
  using watch = new TableWatch();
  while (!signal.aborted) {
    watch.ensure();
    const { next } = watch;
    const failed = (error: unknown): void => {
      if (!signal.aborted) logger.warn("can't keep VMs' packet rules", { error: (error as Error).message });
    };
    try {
      const { plans, failures } = await networks.restore({ signal });
      for (const { taskName, allocId, tap } of plans) {
        logger.warn("put a VM's packet rules back, which something on the host had removed", {
          task: taskName,
          alloc_id: allocId,
          tap,
        });
      }
      failures.forEach(failed);
    } catch (error) {
      failed(error);
    }
    await networks.keepForwarding({ signal }).catch(failed);
    const pause = new AbortController();
    const until = AbortSignal.any([signal, pause.signal]);
    await Promise.race([next, delay(intervalMs, undefined, { signal: until, ref: false }).catch(() => undefined)]);
    pause.abort();
    await delay(calmMs, undefined, { signal, ref: false }).catch(() => undefined);
  }
}
