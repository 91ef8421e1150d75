// IP addresses and networks as text, numbers and bytes.
import { isIP, isIPv4, isIPv6 } from "node:net";

export interface IpNetwork {
  readonly version: 4 | 6;
  readonly address: string;
  readonly prefixLength: number;
}

/** 4 or 16 bytes in network order. The text must be an address (node's isIP). */
export function addressBytes(address: string): Uint8Array {
  if (isIPv4(address)) return Uint8Array.from(address.split(".").map(Number));
  if (!isIPv6(address) || address.includes("%")) throw new TypeError(`not an IP address: ${address}`);
  const lastColon = address.lastIndexOf(":");
  const tail = address.slice(lastColon + 1);
  const hex = isIPv4(tail) ? address.slice(0, lastColon + 1) + ipv4AsGroups(tail) : address;
  const [head = "", rest] = hex.split("::");
  const before = groupsOf(head);
  const after = rest === undefined ? [] : groupsOf(rest);
  const groups = [...before, ...zeros(8 - before.length - after.length), ...after];
  return Uint8Array.from(groups.flatMap((group) => [group >> 8, group & 0xff]));
}

const zeros = (length: number): number[] => Array.from({ length }, () => 0);

const groupsOf = (text: string): number[] =>
  text
    .split(":")
    .filter((group) => group !== "")
    .map((group) => Number.parseInt(group, 16));

function ipv4AsGroups(address: string): string {
  const [a = 0, b = 0, c = 0, d = 0] = address.split(".").map(Number);
  return `${(a * 256 + b).toString(16)}:${(c * 256 + d).toString(16)}`;
}

export function ipv4ToNumber(address: string): number {
  return addressBytes(address).reduce((number, byte) => number * 256 + byte, 0);
}

export function ipv4FromNumber(number: number): string {
  return [24, 16, 8, 0].map((shift) => Math.floor(number / 2 ** shift) % 256).join(".");
}

/** "10.0.0.0/8", "fd00::/8", or an address alone; undefined for anything else. Bits below the prefix are cleared. */
export function parseNetwork(text: string): IpNetwork | undefined {
  const [address = "", length, ...more] = text.split("/");
  const kind = isIP(address);
  if (kind === 0 || address.includes("%") || more.length > 0) return undefined;
  const version = kind === 4 ? 4 : 6;
  const bits = version === 4 ? 32 : 128;
  if (length !== undefined && !/^\d{1,3}$/.test(length)) return undefined;
  const prefixLength = length === undefined ? bits : Number(length);
  if (prefixLength > bits) return undefined;
  return { version, address: bytesToAddress(masked(addressBytes(address), prefixLength)), prefixLength };
}

export function networkText(network: IpNetwork): string {
  return `${network.address}/${network.prefixLength}`;
}

export function networksOverlap(a: IpNetwork, b: IpNetwork): boolean {
  if (a.version !== b.version) return false;
  const length = Math.min(a.prefixLength, b.prefixLength);
  const first = masked(addressBytes(a.address), length);
  const second = masked(addressBytes(b.address), length);
  return first.every((byte, index) => byte === second[index]);
}

function masked(bytes: Uint8Array, prefixLength: number): Uint8Array {
  return bytes.map((byte, index) => {
    const kept = Math.min(Math.max(prefixLength - index * 8, 0), 8);
    return byte & (0xff << (8 - kept)) & 0xff;
  });
}

function bytesToAddress(bytes: Uint8Array): string {
  if (bytes.length === 4) return bytes.join(".");
  const groups = Array.from({ length: 8 }, (_, index) =>
    (((bytes[index * 2] ?? 0) << 8) | (bytes[index * 2 + 1] ?? 0)).toString(16),
  );
  const text = groups.join(":");
  // The longest run of zeros only, as everybody writes it.
  const runs = text.match(/(?:^|:)0(?::0)+(?=:|$)/g) ?? [];
  const longest = runs.toSorted((a, b) => b.length - a.length)[0];
  if (longest === undefined) return text;
  const at = text.indexOf(longest);
  return `${text.slice(0, at)}::${text.slice(at + longest.length).replace(/^:/, "")}`;
}
