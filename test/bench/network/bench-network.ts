// The cost of a VM's network set-up. A client beside the VM's TAP measures with our rules and on the bare TAP (without
// the rules), with the same guest in the same run; then the times of the set-up and its removal. Run by `make
// bench-network`, on an idle machine. LITEGIX_BENCH_SECONDS: length of a measurement of throughput or latency (default
// 1); LITEGIX_BENCH_ROUNDS (default 15).
import { inside, runInside } from "../../end-to-end/support/namespaces.ts";
import { measureSetUp } from "./measure-set-up.ts";
import { measureTraffic } from "./measure-traffic.ts";

if (inside === undefined) {
  await runInside(import.meta.filename);
} else {
  await measureSetUp();
  await measureTraffic();
}
