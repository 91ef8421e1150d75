// Chooses the addresses of a new VM: a /30 of its own, for gateway and guest. The TAP's name contains the guest's address, and the
// kernel refuses a second interface of the same name. Two live VMs of one namespace therefore cannot share an address, even if
// different processes start them.
import { readFile } from "node:fs/promises";
import { type IpNetwork, ipv4FromNumber, ipv4ToNumber, networkText } from "../../system/ip.ts";
import { AddressesExhaustedError } from "../errors.ts";

export interface Lease {
  readonly gateway: string;
  readonly address: string;
  readonly tap: string;
  readonly tapMac: string;
  readonly guestMac: string;
}

const blockSize = 4;

export function leaseOf(address: string): Lease {
  const number = ipv4ToNumber(address);
  const hex = number.toString(16).padStart(8, "0");
  const tail = hex.match(/../g)?.join(":") ?? "";
  return {
    gateway: ipv4FromNumber(number - 1),
    address,
    tap: `lg${hex}`,
    // The first byte marks a locally administered address.
    tapMac: `06:4c:${tail}`,
    guestMac: `02:4c:${tail}`,
  };
}

/** Starts at a random block, so that a freed address is rarely reused soon. Fails with AddressesExhaustedError. */
export function chooseLease(options: {
  subnet: IpNetwork;
  isTaken: (lease: Lease) => boolean;
  /** Returns a number from 0 to below 1. */
  random?: () => number;
}): Lease {
  const { subnet, isTaken, random = Math.random } = options;
  const first = ipv4ToNumber(subnet.address);
  const blocks = 2 ** Math.max(30 - subnet.prefixLength, 0);
  const start = Math.floor(random() * blocks);
  for (let step = 0; step < blocks; step++) {
    const block = (start + step) % blocks;
    const lease = leaseOf(ipv4FromNumber(first + block * blockSize + 2));
    if (!isTaken(lease)) return lease;
  }
  throw new AddressesExhaustedError({ subnet: networkText(subnet) });
}

export const isTapName = (name: string): boolean => /^lg[0-9a-f]{8}$/.test(name);

/** The TAPs of all drivers' VMs in this process's network namespace. */
export async function readTaps(): Promise<Set<string>> {
  const text = await readFile("/proc/self/net/dev", "utf8");
  const names = text.split("\n").map((line) => line.split(":")[0]?.trim() ?? "");
  return new Set(names.filter(isTapName));
}
