// /etc/hosts and /etc/resolv.conf of a guest.
import { readFile } from "node:fs/promises";
import type { TaskConfig } from "../nomad-driver.ts";

export function etcHosts(options: {
  hostname: string;
  /** The job's `extra_hosts`. */
  extraHosts: readonly { readonly name: string; readonly address: string }[];
  /** Undefined for a VM with loopback only. */
  ownAddress: string | undefined;
}): string {
  return [
    "127.0.0.1\tlocalhost",
    "::1\tlocalhost ip6-localhost ip6-loopback",
    "ff02::1\tip6-allnodes",
    "ff02::2\tip6-allrouters",
    `${options.ownAddress ?? "127.0.1.1"}\t${options.hostname}`,
    ...options.extraHosts.map(({ name, address }) => `${address}\t${name}`),
    "",
  ].join("\n");
}

type DnsSettings = NonNullable<TaskConfig["dns"]>;

/**
 * The job's `dns` block is the whole file. Without one, each of the task's own dns_* settings replaces its part of the
 * host's file (the real list behind systemd-resolved's loopback stub), as in docker.
 */
export async function etcResolvConf(options: { dns: DnsSettings | undefined; taskDns: DnsSettings }): Promise<string> {
  const { dns, taskDns } = options;
  if (dns !== undefined && !isEmpty(dns)) return format(dns);
  const host = await hostResolvConf();
  return isEmpty(taskDns) ? host : format(merged(taskDns, host));
}

const isEmpty = (dns: DnsSettings): boolean => dns.servers.length + dns.searches.length + dns.options.length === 0;

function format(dns: DnsSettings): string {
  return [
    ...dns.servers.map((server) => `nameserver ${server}`),
    ...(dns.searches.length > 0 ? [`search ${dns.searches.join(" ")}`] : []),
    ...(dns.options.length > 0 ? [`options ${dns.options.join(" ")}`] : []),
    "",
  ].join("\n");
}

function merged(taskDns: DnsSettings, host: string): DnsSettings {
  const words = (name: string): string[] =>
    host.split("\n").flatMap((line) => {
      const [key, ...values] = line.trim().split(/\s+/);
      return key === name ? values : [];
    });
  const or = (own: readonly string[], name: string): readonly string[] => (own.length > 0 ? own : words(name));
  return {
    servers: or(taskDns.servers, "nameserver"),
    // "." alone means: none.
    searches: or(taskDns.searches, "search").filter((domain) => domain !== "."),
    options: or(taskDns.options, "options"),
  };
}

/** The files in which systemd-resolved, NetworkManager and resolvconf's dnsmasq list the servers behind their own on loopback. */
const behindStubs = [
  "/run/systemd/resolve/resolv.conf",
  "/run/NetworkManager/no-stub-resolv.conf",
  "/run/dnsmasq/resolv.conf",
  "/run/resolvconf/resolv.conf",
];

/**
 * The host's file for a VM, whose loopback is its own: the servers behind those on the host's loopback replace them. If no file
 * names any, the VM gets no server; the driver makes none up.
 */
export async function hostResolvConf(paths: readonly string[] = ["/etc/resolv.conf", ...behindStubs]): Promise<string> {
  const [host = "", ...behind] = await Promise.all(paths.map((path) => readFile(path, "utf8").catch(() => "")));
  if (!nameservers(host).some(isLoopback)) return host;
  return behind.find((text) => nameservers(text).some((server) => !isLoopback(server))) ?? withoutLoopback(host);
}

/** The servers that a resolv.conf names. */
export const nameservers = (text: string): string[] =>
  [...text.matchAll(/^nameserver[ \t]+(\S+)/gm)].map(([, server = ""]) => server);
const isLoopback = (server: string): boolean => server.startsWith("127.") || server === "::1";

function withoutLoopback(text: string): string {
  const kept = text.split("\n").filter((line) => !nameservers(line).some(isLoopback));
  return kept.join("\n");
}
