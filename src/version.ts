// The product's names and version.
import manifest from "../package.json" with { type: "json" };

export const version: string = manifest.version;
export const driverName = "litegix-fc-driver";
