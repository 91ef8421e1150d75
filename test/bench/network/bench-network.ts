// What a VM's network set-up costs: a client beside the VM's TAP, on the way through our rules and on the bare TAP (the rules
// taken away), with the same guest in the same run; and how long the set-up and its removal take.
// Run by `make bench-network`, on an idle machine. LITEGIX_BENCH_SECONDS: of a measurement of throughput or latency (default 1);
// LITEGIX_BENCH_ROUNDS (default 15).
import { inside, runInside } from "../../end-to-end/support/namespaces.ts";
import { measureSetUp } from "./measure-set-up.ts";
import { measureTraffic } from "./measure-traffic.ts";

if (inside === undefined) {
  await runInside(import.meta.filename);
} else {
  await measureSetUp();
  await measureTraffic();
}
