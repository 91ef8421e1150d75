// Servers and clients in this process's namespace or in the peers'.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { run } from "./command.ts";
import { asPeer } from "./namespaces.ts";

/**
 * A server on one port. TCP: answers "from ADDRESS"; in mode "big" it echoes every byte. UDP: echoes with the sender's
 * address.
 */
const serverProgram = `
const net = require("node:net"), dgram = require("node:dgram"), crypto = require("node:crypto");
const [port, mode] = process.argv.slice(1);
net.createServer({ allowHalfOpen: true }, (socket) => {
  socket.on("error", () => {});
  const peer = socket.remoteAddress.replace("::ffff:", "");
  if (mode === "big") { socket.pipe(socket); return; }
  socket.end("from " + peer + "\\n");
}).listen(Number(port), "::");
const udp = dgram.createSocket("udp6");
udp.on("message", (data, from) => udp.send("from " + from.address.replace("::ffff:", "") + " " + data, from.port, from.address));
udp.bind(Number(port), () => console.log("ready"));
`;

export async function serveAsPeer(port: number, mode: "who" | "big" = "who"): Promise<Disposable> {
  return await serve(asPeer(), port, mode);
}

/** As a task of another driver in an allocation's namespace. */
export async function serveInNamespace(path: string, port: number): Promise<Disposable> {
  return await serve(["nsenter", `--net=${path}`, "--"], port, "who");
}

async function serve(words: [string, ...string[]], port: number, mode: "who" | "big"): Promise<Disposable> {
  const [file, ...enter] = words;
  const args = [...enter, process.execPath, "-e", serverProgram, `${port}`, mode];
  const child = spawn(file, args, { stdio: ["ignore", "pipe", "inherit"] });
  await once(child.stdout, "data");
  return { [Symbol.dispose]: () => child.kill("SIGKILL") };
}

const clientProgram = `
const net = require("node:net"), dgram = require("node:dgram");
const [kind, host, port, text = ""] = process.argv.slice(1);
setTimeout(() => { console.log("timeout"); process.exit(1); }, 8000);
if (kind === "tcp") {
  const socket = net.connect(Number(port), host, () => socket.write(text));
  socket.on("data", (data) => process.stdout.write(data));
  socket.on("end", () => process.exit(0));
  socket.on("error", (error) => { console.log(error.code); process.exit(1); });
} else {
  const socket = dgram.createSocket("udp4");
  socket.on("message", (data) => { console.log(String(data)); process.exit(0); });
  const send = () => socket.send(text, Number(port), host);
  send(); setInterval(send, 500);
}
`;

export interface AskOptions {
  readonly host: string;
  readonly port: number;
  readonly text?: string;
  readonly kind?: "tcp" | "udp";
  readonly from?: "peer" | "host";
  /** The file of a network namespace. */
  readonly namespace?: string;
}

/** The bytes that a server sends until it closes, or the error's code. */
export async function askServer(options: AskOptions): Promise<string> {
  const { host, port, text = "", kind = "tcp" } = options;
  const enter =
    options.namespace !== undefined
      ? ["nsenter", `--net=${options.namespace}`, "--"]
      : options.from === "peer"
        ? asPeer()
        : ["env"];
  const [file = "env", ...words] = enter;
  const args = [...words, process.execPath, "-e", clientProgram, kind, host, `${port}`, text];
  return (await run({ file, args })).stdout.trim();
}
