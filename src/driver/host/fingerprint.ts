// The fingerprint: health with a sentence, and attributes for the scheduler and the operator. Sent at once, then on
// change.
import { setTimeout as delay } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";
import type { NetworkHost } from "../../network/inspect/inspect-network.ts";
import { networkText } from "../../system/ip.ts";
import { driverName, version } from "../../version.ts";
import { isolationOf } from "../../vmm/vmm.ts";
import type { Fingerprint } from "../nomad-driver.ts";
import type { ReadyHost, UnreadyHost } from "./inspect-host.ts";

const intervalMs = 30_000;
const prefix = `driver.${driverName}`;

/** Ends when `signal` aborts. */
export async function* fingerprints(options: {
  inspect: () => Promise<ReadyHost | UnreadyHost>;
  signal: AbortSignal;
}): AsyncGenerator<Fingerprint, void, undefined> {
  let sent: Fingerprint | undefined;
  while (!options.signal.aborted) {
    const current = toFingerprint(await options.inspect());
    if (!isDeepStrictEqual(current, sent)) {
      yield current;
      sent = current;
    }
    await delay(intervalMs, undefined, { signal: options.signal }).catch(() => undefined);
  }
}

export function toFingerprint(host: ReadyHost | UnreadyHost): Fingerprint {
  if (!host.ready) {
    const attributes = host.health === "undetected" ? {} : { [prefix]: true, [`${prefix}.version`]: version };
    return { health: host.health, description: host.reason, attributes };
  }
  const { selected, boot, facts, warnings, production } = host;
  return {
    health: "healthy",
    description: warnings.length === 0 ? "Healthy" : `Healthy, with warnings: ${warnings.join("; ")}`,
    attributes: {
      [prefix]: true,
      [`${prefix}.version`]: version,
      [`${prefix}.vmm`]: selected.vmm.kind,
      [`${prefix}.vmm_version`]: selected.vmm.version,
      [`${prefix}.vmm_reason`]: selected.reason,
      [`${prefix}.acceleration`]: selected.vmm.acceleration,
      [`${prefix}.isolation`]: isolationOf(selected.vmm),
      [`${prefix}.kernel_version`]: boot.release,
      [`${prefix}.jailed`]: selected.vmm.jailed,
      [`${prefix}.cgroup_version`]: `${facts.cgroupVersion ?? "none"}`,
      [`${prefix}.free_huge_pages`]: `${facts.freeHugePages}`,
      [`${prefix}.tun`]: facts.tun,
      [`${prefix}.production_ok`]: production.ok.join(","),
      [`${prefix}.production_warnings`]: production.warnings.join(","),
      ...hostNetworkAttributes(host.network),
    },
  };
}

/** The networks that a job can have here. The empty string deletes an earlier reason. */
function hostNetworkAttributes(network: NetworkHost): Record<string, string | boolean> {
  const { nat, group, bridgeLack } = network;
  return {
    [`${prefix}.network.default`]: nat.usable,
    [`${prefix}.network.default_subnet`]: nat.usable ? networkText(nat.subnet) : "",
    [`${prefix}.network.default_reason`]: nat.usable ? "" : nat.reason,
    [`${prefix}.network.group`]: group.usable,
    [`${prefix}.network.group_reason`]: group.usable ? "" : group.reason,
    [`${prefix}.network.bridge_reason`]: bridgeLack ?? "",
  };
}
