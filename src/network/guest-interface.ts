// What the guest's init is told of its interface.
import { addressBytes, parseNetwork } from "../system/ip-address.ts";
import { namespaceSubnet } from "./plan/namespace.ts";
import type { NamespacePlan, NetworkPlan } from "./plan/network-plan.ts";
import { gatewayIpv6 } from "./rules/namespace.ts";

/** Addresses as 4 or 16 bytes; the shape of NetworkInterface in guest.proto. */
export interface GuestInterface {
  readonly mac: Uint8Array;
  readonly mtu: number;
  readonly addresses: { address: Uint8Array; prefixLength: number; onLink: boolean }[];
  readonly routes: { destination: Uint8Array; prefixLength: number; gateway: Uint8Array; source: Uint8Array }[];
  readonly outsidePorts?: { ports: number[]; addresses: Uint8Array[]; gateway: Uint8Array; source: Uint8Array };
}

const nothing = new Uint8Array();

export function guestInterface(plan: NetworkPlan): GuestInterface {
  const gateway = addressBytes(plan.gateway);
  const address = addressBytes(plan.address);
  const own = { address, prefixLength: 30, onLink: true };
  const mac = Uint8Array.from(plan.guestMac.split(":").map((byte) => Number.parseInt(byte, 16)));
  const common = { mac, mtu: plan.mtu };
  if (plan.mode === "nat") {
    const route = { destination: nothing, prefixLength: 0, gateway, source: nothing };
    return { ...common, addresses: [own], routes: [route] };
  }
  return { ...common, ...sharedInterface(plan, own) };
}

function sharedInterface(
  plan: NamespacePlan,
  own: GuestInterface["addresses"][number],
): Pick<GuestInterface, "addresses" | "routes" | "outsidePorts"> {
  const gateway = addressBytes(plan.gateway);
  // The allocation's address first: it is what programs find when they look for their own.
  const shared = [plan.ipv4, plan.ipv6]
    .filter((item) => item !== undefined)
    .map((item) => ({ address: addressBytes(item.address), prefixLength: item.prefixLength, onLink: false }));
  const routes = plan.routes.flatMap((destination) => {
    const network = parseNetwork(destination);
    const source = network?.version === 6 ? plan.ipv6 : plan.ipv4;
    if (network === undefined || source === undefined) return [];
    return [
      {
        destination: network.prefixLength === 0 ? nothing : addressBytes(network.address),
        prefixLength: network.prefixLength,
        gateway: network.version === 6 ? addressBytes(gatewayIpv6) : gateway,
        source: addressBytes(source.address),
      },
    ];
  });
  // The other VMs of the group, by their own addresses.
  const group = {
    destination: addressBytes(namespaceSubnet.address),
    prefixLength: namespaceSubnet.prefixLength,
    gateway,
    source: own.address,
  };
  if (plan.ipv4 === undefined || plan.outsidePorts.length === 0)
    return { addresses: [...shared, own], routes: [...routes, group] };
  const addresses = ["127.0.0.1", plan.ipv4.address].map(addressBytes);
  return {
    addresses: [...shared, own],
    routes: [...routes, group],
    outsidePorts: { ports: [...plan.outsidePorts], addresses, gateway, source: own.address },
  };
}
