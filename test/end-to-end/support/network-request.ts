import type { NetworkRequest } from "../../../src/network/reserve.ts";

/** For a task in the default network with one port; no VM is started for it. */
export function networkRequest(options: { allocId: string; hostPort: number }): NetworkRequest {
  const { allocId, hostPort } = options;
  return {
    taskName: "task",
    allocId,
    namespacePath: undefined,
    ports: [{ label: "web", hostIp: "", hostPort, to: 8080 }],
    named: ["web"],
    upstreamPorts: [],
    egress: { default: "allow", deny: [], allow: [], floor: [] },
    hostAccess: [],
    limits: {},
    forwardTo: [],
  };
}
