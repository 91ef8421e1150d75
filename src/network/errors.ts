// What can go wrong with a VM's network.

/** This host can't give a VM what the job asks for. */
export class NetworkUnavailableError extends Error {
  readonly code = "network_unavailable";
  readonly mode: "default" | "group";
  constructor(mode: "default" | "group", reason: string, options?: ErrorOptions) {
    const alternative = mode === "default" ? '; network_mode = "none" gives a VM without a network' : "";
    super(`this host can't give a VM the ${mode} network: ${reason}${alternative}`, options);
    this.mode = mode;
  }
}

export class AddressesExhaustedError extends Error {
  readonly code = "addresses_exhausted";
  constructor(subnet: string) {
    super(`no address is left in ${subnet}: stop VMs, or give the plugin's network block a larger subnet`);
  }
}

export class NamespaceError extends Error {
  readonly code = "network_namespace";
  readonly path: string;
  constructor(path: string, reason: string, options?: ErrorOptions) {
    super(`the allocation's network namespace ${path} can't be used: ${reason}`, options);
    this.path = path;
  }
}

export class PortClaimedError extends Error {
  readonly code = "port_claimed";
  constructor(label: string, taskName: string) {
    super(
      `ports: label ${JSON.stringify(label)} is claimed by task ${JSON.stringify(taskName)} already; one task may name it`,
    );
  }
}

/** A step on the host failed; nothing of it is left. */
export class NetworkSetupError extends Error {
  readonly code = "network_setup";
  constructor(step: string, options: ErrorOptions) {
    super(`${step}: ${(options.cause as Error).message}`, options);
  }
}

/** Somebody else's VM has the interface: nothing of it may be taken away. */
export class TapTakenError extends Error {
  readonly code = "tap_taken";
  constructor(tap: string, options: ErrorOptions) {
    super(
      `the network interface ${tap} exists already: another driver's VM on this host has the same address; start the task again`,
      options,
    );
  }
}

/** A rule of an egress policy that is none. */
export class EgressRuleError extends Error {
  readonly code = "egress_rule";
  readonly rule: string;
  constructor(rule: string, reason: string) {
    super(`${JSON.stringify(rule)}: ${reason}`);
    this.rule = rule;
  }
}
