// The guest's configuration before its task starts: as plain types, and as a message of guest.proto.
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { ConfigureRequestSchema, NetworkInterfaceSchema } from "../gen/litegix/guest/v1/guest_pb.js";

export interface ProcessSpec {
  readonly argv: readonly string[];
  readonly env: readonly string[];
  readonly user: string;
  readonly workDir: string;
  /** Supplementary groups beside the user's own: names or numbers. */
  readonly additionalGroups: readonly string[];
  /** Bit n stands for capability n. */
  readonly capabilities: bigint;
  /** 2^64-1 is unlimited. */
  readonly limits: readonly { readonly name: string; readonly soft: bigint; readonly hard: bigint }[];
  readonly oomScoreAdjustment: number;
  readonly noNewPrivileges: boolean;
  readonly terminal: boolean;
  readonly openStdin: boolean;
}

export interface GuestSetup {
  readonly cgroupName: string;
  readonly hostname: string;
  readonly etcHosts: string;
  readonly etcResolvConf: string;
  readonly directories: readonly string[];
  readonly process: ProcessSpec;
  readonly privileged: boolean;
  readonly unmasked: boolean;
  readonly readOnlyRoot: boolean;
  /** 0: docker's 64 MiB. */
  readonly shmSizeBytes: number;
  readonly tmpfsMounts: readonly {
    readonly path: string;
    readonly sizeBytes: number;
    readonly mode: number;
    readonly options: readonly string[];
  }[];
  /** Devices of the guest's kernel. */
  readonly devices: readonly { readonly path: string; readonly target: string }[];
  readonly sysctls: readonly { readonly name: string; readonly value: string }[];
  /** 0: the guest's kernel's own limit. */
  readonly pidsLimit: number;
  readonly oomWatch: boolean;
  readonly init: boolean;
  /** Undefined: loopback only. */
  readonly network?: MessageInitShape<typeof NetworkInterfaceSchema> | undefined;
}

export function configureRequest(setup: GuestSetup): MessageInitShape<typeof ConfigureRequestSchema> {
  const { process } = setup;
  return {
    cgroupName: setup.cgroupName,
    hostname: setup.hostname,
    etcHosts: setup.etcHosts,
    etcResolvConf: setup.etcResolvConf,
    directories: [...setup.directories],
    process: {
      argv: [...process.argv],
      env: [...process.env],
      user: process.user,
      workDir: process.workDir,
      additionalGroups: [...process.additionalGroups],
      capabilities: process.capabilities,
      limits: [...process.limits],
      oomScoreAdjustment: process.oomScoreAdjustment,
      noNewPrivileges: process.noNewPrivileges,
      terminal: process.terminal,
      openStdin: process.openStdin,
    },
    privileged: setup.privileged,
    unmasked: setup.unmasked,
    readOnlyRoot: setup.readOnlyRoot,
    shmSizeBytes: BigInt(setup.shmSizeBytes),
    tmpfsMounts: setup.tmpfsMounts.map((mount) => ({
      path: mount.path,
      sizeBytes: BigInt(mount.sizeBytes),
      mode: mount.mode,
      options: [...mount.options],
    })),
    devices: [...setup.devices],
    sysctls: [...setup.sysctls],
    pidsLimit: BigInt(setup.pidsLimit),
    oomWatch: setup.oomWatch,
    init: setup.init,
    ...(setup.network === undefined ? {} : { network: setup.network }),
  };
}
