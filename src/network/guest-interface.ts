// The interface as the driver describes it to the guest's agent.
import { addressBytes, parseNetwork } from "../system/ip.ts";
import { namespaceSubnet } from "./plan/namespace.ts";
import { byMode, type NamespacePlan, type NatPlan, type NetworkPlan } from "./plan/network-plan.ts";
import { gatewayIpv6 } from "./rules/namespace.ts";

/** Has the shape of NetworkInterface in guest.proto. Addresses are 4 or 16 bytes. */
export interface GuestInterface {
  readonly mac: Uint8Array;
  readonly mtu: number;
  readonly addresses: { address: Uint8Array; prefixLength: number; onLink: boolean }[];
  readonly routes: { destination: Uint8Array; prefixLength: number; gateway: Uint8Array; source: Uint8Array }[];
  readonly outsidePorts?: { ports: number[]; addresses: Uint8Array[]; gateway: Uint8Array; source: Uint8Array };
}

const nothing = new Uint8Array();

export const guestInterface = (plan: NetworkPlan): GuestInterface =>
  byMode(plan, { nat: natInterface, namespace: namespaceInterface });

function natInterface(plan: NatPlan): GuestInterface {
  const { gateway, own, mac, mtu } = commonOf(plan);
  const route = { destination: nothing, prefixLength: 0, gateway, source: nothing };
  return { mac, mtu, addresses: [own], routes: [route] };
}

function namespaceInterface(plan: NamespacePlan): GuestInterface {
  const { gateway, own, mac, mtu } = commonOf(plan);
  // The allocation's address is the first: programs that look for their own address take it.
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
  // The group's other VMs have addresses of their own.
  const group = {
    destination: addressBytes(namespaceSubnet.address),
    prefixLength: namespaceSubnet.prefixLength,
    gateway,
    source: own.address,
  };
  const common = { mac, mtu, addresses: [...shared, own], routes: [...routes, group] };
  if (plan.ipv4 === undefined || plan.outsidePorts.length === 0) return common;
  const addresses = ["127.0.0.1", plan.ipv4.address].map(addressBytes);
  return { ...common, outsidePorts: { ports: [...plan.outsidePorts], addresses, gateway, source: own.address } };
}

function commonOf(plan: NetworkPlan) {
  return {
    gateway: addressBytes(plan.gateway),
    own: { address: addressBytes(plan.address), prefixLength: 30, onLink: true },
    mac: Uint8Array.from(plan.guestMac.split(":").map((byte) => Number.parseInt(byte, 16))),
    mtu: plan.mtu,
  };
}
