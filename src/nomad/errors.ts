// Faults in Nomad's messages.
import { driverError } from "../system/error.ts";

export class DriverConfigError extends driverError(
  "driver_config",
  (facts: { reason: string }) => `Nomad sent a config block that can't be read: ${facts.reason}`,
) {}
