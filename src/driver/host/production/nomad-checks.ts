// The production checks of this host's Nomad agent. Sources: Nomad's documentation on its security model and on the client's
// reserved ports.
import { type CheckGroup, notApplicable, ok, type ProductionCheck, unknown, type Verdict, warning } from "./check.ts";
import type { NomadAgent, NomadState } from "./nomad-state.ts";

function reached(nomad: NomadState, look: (agent: NomadAgent) => Verdict): Verdict {
  return nomad.reached ? look(nomad.agent) : unknown(`not checked: ${nomad.reason}`);
}

const acl: ProductionCheck = {
  id: "nomad_acl",
  advice: "Nomad's access control lists are on.",
  reason: "Without them everyone who reaches the API runs jobs, reads secrets and opens sessions in tasks.",
  cure: "Set `acl { enabled = true }` on all agents, and run `nomad acl bootstrap`.",
  look: ({ nomad }) => {
    if (!nomad.reached && nomad.refused) return ok("the agent asks for a token");
    return reached(nomad, (agent) => (agent.acl ? ok("acl.enabled is true") : warning("acl.enabled is false")));
  },
};

const addresses: ProductionCheck = {
  id: "nomad_addresses",
  advice: "Nomad listens on chosen addresses, or its API asks for a client's certificate.",
  reason: "Nomad's default is every address of the host. Everyone on each of its networks then reaches the API.",
  cure: "Set `bind_addr`, or `addresses { http }`, to loopback or to an address of the management network.",
  look: ({ nomad }) =>
    reached(nomad, ({ addresses: bound, tls }) => {
      const found = Object.entries(bound)
        .map(([name, address]) => `${name} ${address}`)
        .join(", ");
      const everywhere = Object.entries(bound).filter(([, address]) =>
        /(?:^|\s)(?:0\.0\.0\.0|::|\[::\])(?:$|\s)/.test(address),
      );
      if (everywhere.length === 0) return ok(found);
      const guarded = tls.http && tls.verifiesClients && tls.rpc;
      return guarded ? ok(`${found}; TLS asks for a client's certificate`) : warning(found);
    }),
};

const tls: ProductionCheck = {
  id: "nomad_tls",
  advice: "Nomad's API and RPC use TLS.",
  reason: "Tokens, variables and jobs otherwise cross the network in the clear, and agents trust every sender.",
  cure: "Set `tls { http = true rpc = true }` with certificates, and `verify_server_hostname = true`.",
  look: ({ nomad }) =>
    reached(nomad, (agent) => {
      const { http, rpc } = agent.tls;
      const found = `tls.http is ${http}, tls.rpc is ${rpc}`;
      if (http && rpc) return ok(found);
      const local = Object.values(agent.addresses).every((address) => /^(?:127\.\S*|::1|localhost)$/.test(address));
      return local ? notApplicable(`${found}; the agent listens on loopback only`) : warning(found);
    }),
};

/** sshd's. */
const sshPort = 22;

const reservedPorts: ProductionCheck = {
  id: "nomad_reserved_ports",
  advice: "Nomad's own ports and sshd's are reserved: no job gets them.",
  reason:
    "Nomad reserves no port by itself. A job that asks for the API's static port otherwise fails at its start, or hides the API.",
  cure: 'Set `client { reserved { reserved_ports = "22,4646-4648" } }`, and add the ports of the host\'s other services.',
  look: ({ nomad, state }) =>
    reached(nomad, (agent) => {
      if (!agent.client) return notApplicable("this agent is not a client");
      const reserved = parsePorts(agent.reservedPorts);
      const needed = [...Object.values(agent.ports), ...(state.listening.has(sshPort) ? [sshPort] : [])];
      const missing = needed.filter((port) => !reserved.some(([first, last]) => port >= first && port <= last));
      const found = `reserved_ports = "${agent.reservedPorts}"`;
      return missing.length === 0 ? ok(found) : warning(`${found}, without ${missing.join(", ")}`);
    }),
};

const rawExec: ProductionCheck = {
  id: "nomad_raw_exec",
  advice: "Nomad's driver raw_exec is off.",
  reason: "Everyone who may run a job is root on the host with it.",
  cure: 'Remove `plugin "raw_exec"`, and do not run `nomad agent -dev`.',
  look: ({ nomad }) => reached(nomad, (agent) => (agent.rawExec ? warning("raw_exec is on") : ok("raw_exec is off"))),
};

export const nomadGroup: CheckGroup = {
  title: "Nomad",
  source:
    "They follow Nomad's security model. `doctor` asks the local agent, with `NOMAD_ADDR`, `NOMAD_TOKEN` and Nomad's other variables.",
  checks: [acl, addresses, tls, reservedPorts, rawExec],
};

/** "22,4646-4648" as ranges; both ends belong to them. */
function parsePorts(text: string): (readonly [first: number, last: number])[] {
  return text.split(",").flatMap((part) => {
    const [first = Number.NaN, last = first] = part.split("-").map((number) => Number.parseInt(number, 10));
    return Number.isNaN(first) ? [] : [[first, last] as const];
  });
}
