// IP addresses and networks as text, numbers and bytes. Every text form of IPv6 is read and written by the URL parser.
import { isIP, isIPv4 } from "node:net";

export interface IpNetwork {
  readonly version: 4 | 6;
  readonly address: string;
  readonly prefixLength: number;
}

/** 4 or 16 bytes in network order. The text must be an address (node's isIP) without a zone. */
export function addressBytes(address: string): Uint8Array {
  if (!isAddress(address)) throw new TypeError(`not an IP address: ${address}`);
  if (isIPv4(address)) return Uint8Array.from(address.split(".").map(Number));
  const [before = [], after = []] = canonicalIpv6(address)
    .split("::")
    .map((part) => part.split(":").filter((group) => group !== ""));
  const zeros = Array.from({ length: 8 - before.length - after.length }, () => "0");
  const groups = [...before, ...zeros, ...after].map((group) => Number.parseInt(group, 16));
  return Uint8Array.from(groups.flatMap((group) => [group >> 8, group & 0xff]));
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
  if (!isAddress(address) || more.length > 0 || !/^\d{1,3}$/.test(length ?? "0")) return undefined;
  const bytes = addressBytes(address);
  const prefixLength = Number(length ?? bytes.length * 8);
  if (prefixLength > bytes.length * 8) return undefined;
  return { version: bytes.length === 4 ? 4 : 6, address: addressOf(masked(bytes, prefixLength)), prefixLength };
}

export function networkText(network: IpNetwork): string {
  return `${network.address}/${network.prefixLength}`;
}

export function networksOverlap(a: IpNetwork, b: IpNetwork): boolean {
  const length = Math.min(a.prefixLength, b.prefixLength);
  const [first, second] = [a, b].map(({ address }) => addressOf(masked(addressBytes(address), length)));
  return a.version === b.version && first === second;
}

function masked(bytes: Uint8Array, prefixLength: number): Uint8Array {
  return bytes.map((byte, index) => byte & (0xff00 >> Math.min(Math.max(prefixLength - index * 8, 0), 8)));
}

function addressOf(bytes: Uint8Array): string {
  if (bytes.length === 4) return bytes.join(".");
  return canonicalIpv6(
    Buffer.from(bytes)
      .toString("hex")
      .replaceAll(/(?!^)(?=(?:.{4})+$)/g, ":"),
  );
}

function canonicalIpv6(address: string): string {
  return new URL(`http://[${address}]`).hostname.slice(1, -1);
}

function isAddress(text: string): boolean {
  return isIP(text) !== 0 && !text.includes("%");
}
