// Errors of VMs' networks.
import { driverError, reasonOf } from "../system/error.ts";

/** This host cannot give a VM the network that the job asks for. */
export class NetworkUnavailableError extends driverError(
  "network_unavailable",
  (facts: { mode: "default" | "group"; reason: string }) => {
    const alternative = facts.mode === "default" ? '; network_mode = "none" gives a VM without a network' : "";
    return `this host can't give a VM the ${facts.mode} network: ${facts.reason}${alternative}`;
  },
) {}

export class AddressesExhaustedError extends driverError(
  "addresses_exhausted",
  (facts: { subnet: string }) =>
    `no address is left in ${facts.subnet}: stop VMs, or give the plugin's network block a larger subnet`,
) {}

export class NamespaceError extends driverError(
  "network_namespace",
  (facts: { path: string; reason: string }) =>
    `the allocation's network namespace ${facts.path} can't be used: ${facts.reason}`,
) {}

export class PortClaimedError extends driverError(
  "port_claimed",
  (facts: { label: string; taskName: string }) =>
    `ports: label ${JSON.stringify(facts.label)} is claimed by task ${JSON.stringify(facts.taskName)} already; one task may name it`,
) {}

/** A program of the host has a port that the VM would publish. */
export class PortInUseError extends driverError(
  "port_in_use",
  (facts: {
    protocol: string;
    address: string;
    port: number;
    holder: { readonly name: string; readonly pid: number } | undefined;
  }) => {
    const { protocol, address, port, holder } = facts;
    const where = address === "0.0.0.0" ? "the host" : address;
    const who = holder === undefined ? "a process that the driver can't see" : `${holder.name} (pid ${holder.pid})`;
    return `port ${port}/${protocol} of ${where} is in use by ${who}: give the task another port, or stop that program; reserved_ports in the client's reserved block keeps Nomad from giving out such a port`;
  },
) {}

/** A step on the host failed, and has left nothing behind. */
export class NetworkSetupError extends driverError(
  "network_setup",
  (facts: { step: string; cause: unknown }) => `${facts.step}: ${reasonOf(facts.cause)}`,
) {}

/** Another driver's VM has the interface, so this driver must not remove it. */
export class TapTakenError extends driverError(
  "tap_taken",
  (facts: { tap: string }) =>
    `the network interface ${facts.tap} exists already: another driver's VM on this host has the same address; start the task again`,
) {}

/** A text is not a rule of an egress policy. */
export class EgressRuleError extends driverError(
  "egress_rule",
  (facts: { rule: string; reason: string }) => `${JSON.stringify(facts.rule)}: ${facts.reason}`,
) {}
